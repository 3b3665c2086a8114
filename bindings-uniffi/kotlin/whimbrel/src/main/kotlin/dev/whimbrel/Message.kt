package dev.whimbrel

import dev.whimbrel.internal.Draft
import dev.whimbrel.internal.Property
import java.time.Instant
import kotlin.time.Duration
import dev.whimbrel.internal.Durability as NativeDurability
import dev.whimbrel.internal.Lane as NativeLane

/** The queue of the outbox a message waits in. Alerts overtake all waiting telemetry; order is kept within a lane. */
public enum class Lane {
    /** The usual one. */
    TELEMETRY,

    /** What cannot wait. */
    ALERT,
}

/** What `send` waits for. */
public enum class Durability {
    /** The message is on the disk. */
    ON_DISK,

    /** It will be written within [DeviceOptions.syncInterval]. */
    INTERVAL,

    /** Nothing. */
    MEMORY,
    ;

    internal fun native() =
        when (this) {
            ON_DISK -> NativeDurability.ON_DISK
            INTERVAL -> NativeDurability.INTERVAL
            MEMORY -> NativeDurability.MEMORY
        }
}

/**
 * A message from the device. Immutable: each function gives another one that says more. The body is not copied until the
 * message is sent, so it must not be written to before.
 *
 * ```
 * Message.telemetry(bytes).property("room", "attic").expiresIn(1.hours)
 * ```
 */
public class Message private constructor(internal val body: ByteArray, internal val draft: Draft?) {
    internal val written: ByteArray by lazy(LazyThreadSafetyMode.PUBLICATION) { native(SEND) { written(draft) } }

    /** Adds an application property, behind those there are. */
    public fun property(name: String, value: String): Message = says { it.copy(properties = it.properties + Property(name, value)) }

    /** Adds application properties, in their order. */
    public fun properties(properties: Map<String, String>): Message =
        says { it.copy(properties = it.properties + properties.map { (name, value) -> Property(name, value) }) }

    /** The id that outcomes and receipts are found by, at most 128 characters. Without one the outbox makes one. */
    public fun messageId(id: String): Message = says { it.copy(messageId = id) }

    /** Joins this message to another one. */
    public fun correlationId(id: String): Message = says { it.copy(correlationId = id) }

    /** Who caused the message. */
    public fun userId(id: String): Message = says { it.copy(userId = id) }

    /** The content type of the body, such as `application/json`. */
    public fun contentType(type: String): Message = says { it.copy(contentType = type) }

    /** The character set of the body, such as `utf-8`. */
    public fun contentEncoding(encoding: String): Message = says { it.copy(contentEncoding = encoding) }

    /** When the content was made, by this machine's clock. Milliseconds cross. */
    public fun creationTime(time: Instant): Message = says { it.copy(creationTimeMs = time.toEpochMilli()) }

    /** Schema of the content. */
    public fun messageSchema(schema: String): Message = says { it.copy(messageSchema = schema) }

    /** Output of a module. */
    public fun outputName(name: String): Message = says { it.copy(outputName = name) }

    /** Interface id of a security message. */
    public fun interfaceId(id: String): Message = says { it.copy(interfaceId = id) }

    /** Component the message belongs to. */
    public fun component(name: String): Message = says { it.copy(component = name) }

    /**
     * Time to live, counted from `send`, also while offline. Milliseconds count; zero is refused by `send`.
     *
     * @throws WhimbrelException.InvalidArgument for a negative one.
     */
    public fun expiresIn(time: Duration): Message = says { it.copy(expiresInMs = millisecondsOf(SEND, "the time to live", time)) }

    /** What `send` waits for, instead of the outbox's own setting. */
    public fun durability(durability: Durability): Message = says { it.copy(durability = durability.native()) }

    private fun says(more: (Draft) -> Draft) = Message(body, more(draft ?: Draft()))

    override fun toString(): String = "Message(${body.size} bytes)"

    public companion object {
        /** Telemetry with this body. */
        @JvmStatic
        public fun telemetry(body: ByteArray): Message = Message(body, null)

        /** An alert with this body: it overtakes all telemetry that waits. */
        @JvmStatic
        public fun alert(body: ByteArray): Message = Message(body, Draft(lane = NativeLane.ALERT))

        /** A message in this lane. */
        @JvmStatic
        public fun inLane(lane: Lane, body: ByteArray): Message =
            when (lane) {
                Lane.TELEMETRY -> telemetry(body)
                Lane.ALERT -> alert(body)
            }

        /** Telemetry with this JSON text as its body; content type and encoding say so. The text is not looked at. */
        @JvmStatic
        public fun json(text: String): Message {
            val body = native(SEND) { utf8Of(text) }
            return Message(body, Draft(contentType = "application/json", contentEncoding = "utf-8"))
        }
    }
}

/** The text as UTF-8; half of a surrogate pair is refused, not replaced. */
private fun utf8Of(text: String): ByteArray = text.encodeToByteArray(throwOnInvalidSequence = true)

internal const val SEND = "device.send"
