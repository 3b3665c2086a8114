package dev.whimbrel

import dev.whimbrel.internal.Received
import dev.whimbrel.internal.TakenCommand
import java.time.Instant
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.flow.AbstractFlow
import kotlinx.coroutines.flow.FlowCollector
import dev.whimbrel.internal.Command as NativeCommand
import dev.whimbrel.internal.Inbox as NativeInbox

/**
 * The commands of a device, in the order of their arrival: a flow that ends when the client is closed. It waits on while the
 * client is suspended.
 *
 * Several may collect it, or call [next]; each command goes to one of them. A command is taken when the collector is ready for
 * it, so nothing is lost when the collecting coroutine is cancelled; an operator that takes ahead, such as `buffer`, loses what
 * it holds.
 */
@OptIn(ExperimentalCoroutinesApi::class)
public class Inbox internal constructor(private val native: NativeInbox) : AbstractFlow<Command>() {
    /**
     * The next command; waits for one. Null once the client is closed. Cancelling loses none: whoever asks next gets it. That
     * holds for this call; `withTimeout` around it may throw away what it returned, as it may anything.
     *
     * @throws WhimbrelException.Unsupported for a module, which has no commands.
     * @throws WhimbrelException what the hub said when it refused to send commands; [WhimbrelException.JournalIo] when the
     *   outbox failed.
     */
    public suspend fun next(): Command? {
        while (true) {
            when (val taken = native(NEXT) { native.take() }) {
                is TakenCommand.Command -> return Command(taken.command, taken.message)
                is TakenCommand.End -> return null
                is TakenCommand.Nothing ->
                    try {
                        awaited(NEXT) { native.ready(null) }
                    } catch (cancelled: CancellationException) {
                        // The news may have been for this one.
                        native.passOn()
                        throw cancelled
                    }
            }
        }
    }

    override suspend fun collectSafely(collector: FlowCollector<Command>) {
        while (true) collector.emit(next() ?: return)
    }

    private companion object {
        const val NEXT = "inbox.next"
    }
}

/**
 * A command, locked for this device until it is settled. It may be settled later than the call that received it, in any order,
 * from any thread.
 *
 * One that is forgotten stays locked until the hub takes the lock back, and is delivered again then. Cancelling a settlement
 * stops the waiting, not the settling.
 */
public class Command internal constructor(private val native: NativeCommand, private val message: Received) {
    /** What the service sent. Not to be written to. */
    public val body: ByteArray get() = message.body

    /** The application properties. Of several with the same name this has the last one. */
    public val properties: Map<String, String> by lazy(LazyThreadSafetyMode.PUBLICATION) {
        message.properties.associate { it.name to it.value }
    }

    /** The id that the service finds the outcome by, where it gave one. */
    public val messageId: String? get() = message.messageId

    /** Joins it to another message, where the service said so. */
    public val correlationId: String? get() = message.correlationId

    /** Who caused it, where the service said so. */
    public val userId: String? get() = message.userId

    /** The content type of the body, where the service said it. */
    public val contentType: String? get() = message.contentType

    /** The character set of the body, where the service said it. */
    public val contentEncoding: String? get() = message.contentEncoding

    /** When it was made, where the service said it. */
    public val creationTime: Instant? get() = message.creationTimeMs?.let(Instant::ofEpochMilli)

    /** Its number in the device's queue, not negative, where the protocol tells it (not on MQTT 3.1.1). */
    public val sequence: Long? get() = message.sequence?.toLong()

    /** When the hub took it in, where the protocol tells it (not on MQTT 3.1.1). */
    public val enqueuedAt: Instant? get() = message.enqueuedAtMs?.let(Instant::ofEpochMilli)

    /** How many deliveries counted before this one, not negative, where the protocol tells it (not on MQTT 3.1.1). */
    public val deliveryCount: Long? get() = message.deliveryCount?.toLong()

    /**
     * It was dealt with: the hub removes it, and it is never handed out again. Returns when that is recorded on this device,
     * and handed to the connection or answered by the hub, whichever the protocol has.
     *
     * @throws WhimbrelException.Conflict when it was settled before; says how.
     * @throws WhimbrelException.LockLost when the hub did not hold it any more.
     * @throws WhimbrelException.DiskFull and [WhimbrelException.JournalIo] when it could not be recorded; the call can be
     *   repeated.
     * @throws WhimbrelException.Closed
     */
    public suspend fun complete(): Unit = awaited("command.complete") { native.complete(null) }

    /**
     * Not now: the hub delivers it again, a limited number of times.
     *
     * @throws WhimbrelException.Unsupported on MQTT 3.1.1: it stays locked, and can still be completed.
     * @throws WhimbrelException.LockLost when the connection was lost meanwhile; it is delivered again all the same.
     * @throws WhimbrelException.Conflict
     * @throws WhimbrelException.Closed
     */
    public suspend fun abandon(): Unit = awaited("command.abandon") { native.abandon(null) }

    /**
     * Never: the hub dead-letters it, and it is never handed out again. Otherwise as [complete].
     *
     * @throws WhimbrelException.Unsupported on MQTT 3.1.1: it stays locked, and can still be completed.
     */
    public suspend fun reject(): Unit = awaited("command.reject") { native.reject(null) }

    override fun toString(): String = "Command(messageId=$messageId, sequence=$sequence)"
}
