package dev.whimbrel

import dev.whimbrel.internal.Device
import dev.whimbrel.internal.Receipt as NativeReceipt
import dev.whimbrel.internal.ReceiptState as NativeReceiptState

/** What `send` returns: the message is safe, and this is how to follow it. Forgetting it changes nothing. */
public class Receipt internal constructor(private val device: Device, private val native: NativeReceipt) {
    /** The id to find this receipt again with, also after a restart: [DeviceClient.receipt]. */
    public val messageId: String by lazy(LazyThreadSafetyMode.PUBLICATION) {
        native.messageId ?: native("receipt.message_id") { device.messageId(native.place, native.sequence) }
    }

    /** Where the message is now. */
    public fun state(): ReceiptState {
        native.ended?.let { return ReceiptState.Settled(outcomeOf(it)) }
        return when (val state = native("receipt.state") { device.state(native.place, native.sequence) }) {
            is NativeReceiptState.Queued -> ReceiptState.Queued
            is NativeReceiptState.Sent -> ReceiptState.Sent
            is NativeReceiptState.Settled -> ReceiptState.Settled(outcomeOf(state.outcome))
            is NativeReceiptState.Unknown -> ReceiptState.Unknown
        }
    }

    /**
     * Waits for the end, also while the client is suspended. Cancelling changes nothing; call again.
     *
     * @throws WhimbrelException.Closed when the client is closed first.
     * @throws WhimbrelException.NotFound when the outcome is no longer kept.
     */
    public suspend fun outcome(): Outcome {
        native.ended?.let { return outcomeOf(it) }
        return awaited("receipt.outcome") { outcomeOf(device.outcome(native.place, native.sequence, null)) }
    }

    override fun toString(): String = "Receipt($messageId)"
}
