package dev.whimbrel

import java.io.File
import kotlin.time.Duration
import dev.whimbrel.internal.DeviceOptions as NativeOptions
import dev.whimbrel.internal.Overflow as NativeOverflow
import dev.whimbrel.internal.Protocol as NativeProtocol

/** What a full outbox does. */
public enum class Overflow {
    /** Refuses the new message. */
    REJECT,

    /** Drops the oldest ones. */
    DROP_OLDEST,

    /** Drops the new one. */
    DROP_NEWEST,
    ;

    internal fun native() =
        when (this) {
            REJECT -> NativeOverflow.REJECT
            DROP_OLDEST -> NativeOverflow.DROP_OLDEST
            DROP_NEWEST -> NativeOverflow.DROP_NEWEST
        }
}

/** How to speak to the hub. */
public enum class Protocol {
    /** MQTT 5, and MQTT 3.1.1 with a hub that does not speak it. */
    AUTO,

    /** MQTT 3.1.1. */
    MQTT3,

    /** MQTT 5. */
    MQTT5,

    /** AMQP 1.0. */
    AMQP,

    /** HTTPS. */
    HTTP,
    ;

    internal fun native() =
        when (this) {
            AUTO -> NativeProtocol.AUTO
            MQTT3 -> NativeProtocol.MQTT3
            MQTT5 -> NativeProtocol.MQTT5
            AMQP -> NativeProtocol.AMQP
            HTTP -> NativeProtocol.HTTP
        }
}

/**
 * Options of [DeviceClient.open]. What is not given has its default in the core. Of durations whole milliseconds count; numbers
 * are not negative.
 *
 * @property outboxDir folder of the outbox; one open client at a time. Either this or [outboxInMemory] is needed.
 * @property outboxInMemory keeps the outbox in memory: what is not delivered when the process ends is lost.
 * @property overflow what a full outbox does; to refuse unless told otherwise.
 * @property durability what `send` waits for; the disk unless told otherwise.
 * @property outboxMaxBytes bound of the outbox in bytes.
 * @property outboxMaxMessages bound of the outbox in messages.
 * @property outboxMaxAge messages that have no time to live of their own expire at this age.
 * @property syncInterval how often messages of durability [Durability.INTERVAL] are written to the disk.
 * @property keptOutcomes how many outcomes are kept to be asked for by id.
 * @property server address of the hub, such as `mqtts://hub.example:8883`, instead of what the connection string says.
 * @property websocket speaks through a WebSocket, on port 443 unless the server says otherwise.
 * @property proxy address of an HTTP proxy to connect through.
 * @property caFile file with the certificates of authorities to trust instead of the usual ones.
 * @property caPem the same as text.
 * @property clientCertificate file of the device's certificate chain; with [clientKey].
 * @property clientKey file of the key of [clientCertificate].
 * @property clientCertificatePem text of the device's certificate chain; with [clientKeyPem].
 * @property clientKeyPem text of the key of [clientCertificatePem].
 * @property allowUnencrypted allows connections without TLS to other machines.
 * @property protocol how to speak to the hub; [Protocol.AUTO] unless told otherwise.
 * @property keepAlive how long a silent connection is trusted.
 * @property connectTimeout how long connecting may take.
 * @property pollInterval how often commands are asked for over HTTP.
 * @property window messages on their way at the same time, at most 65,535.
 * @property inboxWindow commands held at the same time, at most 65,535.
 * @property backoff shortest and longest wait before connecting again, such as `1.seconds..2.minutes`.
 * @property closeDeadline how long `shutdown` tries to deliver what is queued.
 * @property tokenLifetime how long a token is valid.
 */
public class DeviceOptions(
    public val outboxDir: File? = null,
    public val outboxInMemory: Boolean = false,
    public val overflow: Overflow? = null,
    public val durability: Durability? = null,
    public val outboxMaxBytes: Long? = null,
    public val outboxMaxMessages: Long? = null,
    public val outboxMaxAge: Duration? = null,
    public val syncInterval: Duration? = null,
    public val keptOutcomes: Long? = null,
    public val server: String? = null,
    public val websocket: Boolean = false,
    public val proxy: String? = null,
    public val caFile: File? = null,
    public val caPem: String? = null,
    public val clientCertificate: File? = null,
    public val clientKey: File? = null,
    public val clientCertificatePem: String? = null,
    public val clientKeyPem: String? = null,
    public val allowUnencrypted: Boolean = false,
    public val protocol: Protocol? = null,
    public val keepAlive: Duration? = null,
    public val connectTimeout: Duration? = null,
    public val pollInterval: Duration? = null,
    public val window: Int? = null,
    public val inboxWindow: Int? = null,
    public val backoff: ClosedRange<Duration>? = null,
    public val closeDeadline: Duration? = null,
    public val tokenLifetime: Duration? = null,
) {
    internal fun native() =
        NativeOptions(
            outbox = outboxDir?.path,
            outboxInMemory = outboxInMemory,
            overflow = overflow?.native(),
            durability = durability?.native(),
            outboxMaxBytes = count("outboxMaxBytes", outboxMaxBytes),
            outboxMaxMessages = count("outboxMaxMessages", outboxMaxMessages),
            outboxMaxAgeMs = time("outboxMaxAge", outboxMaxAge),
            syncIntervalMs = time("syncInterval", syncInterval),
            keptOutcomes = count("keptOutcomes", keptOutcomes),
            server = server,
            websocket = websocket,
            proxy = proxy,
            caFile = caFile?.path,
            caPem = caPem,
            clientCertificate = clientCertificate?.path,
            clientKey = clientKey?.path,
            clientCertificatePem = clientCertificatePem,
            clientKeyPem = clientKeyPem,
            allowUnencrypted = allowUnencrypted,
            protocol = protocol?.native(),
            keepAliveMs = time("keepAlive", keepAlive),
            connectTimeoutMs = time("connectTimeout", connectTimeout),
            pollIntervalMs = time("pollInterval", pollInterval),
            window = small("window", window),
            inboxWindow = small("inboxWindow", inboxWindow),
            backoffMinMs = time("backoff", backoff?.start),
            backoffMaxMs = time("backoff", backoff?.endInclusive),
            closeDeadlineMs = time("closeDeadline", closeDeadline),
            tokenLifetimeMs = time("tokenLifetime", tokenLifetime),
        )

    private fun time(name: String, time: Duration?) = time?.let { millisecondsOf(OPEN, "option $name", it) }

    private fun count(name: String, number: Long?) = number?.let { countOf(OPEN, "option $name", it) }

    private fun small(name: String, number: Int?) =
        number?.let {
            if (it !in 0..UShort.MAX_VALUE.toInt()) throw invalid(OPEN, "option $name is not within 0 and 65535: $it")
            it.toUShort()
        }
}

internal const val OPEN = "device.open"
