// The hub is away and the device program is restarted; nothing is lost, nothing comes twice, the order is kept.
import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import dev.whimbrel.Message
import dev.whimbrel.testing.LocalHub
import java.nio.file.Files
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds

private const val MESSAGES = 500

suspend fun main() {
    LocalHub().use { hub ->
        val connectionString = hub.createDevice("pump-3")
        val outbox = Files.createTempDirectory("outbox-").toFile()
        val options =
            DeviceOptions(
                outboxDir = outbox,
                server = hub.server(),
                backoff = 10.milliseconds..100.milliseconds,
                closeDeadline = Duration.ZERO,
            )
        hub.stop()
        println("the hub is away")

        // Two lives of the device program: each sends its half and ends, with no hub in sight.
        for (half in (0 until MESSAGES).chunked(MESSAGES / 2)) {
            DeviceClient.open(connectionString, options).use { device ->
                device.sendMany(half.map { Message.telemetry("$it".encodeToByteArray()) })
                println("the device has ${device.account().queued} messages in its outbox and is restarted")
            }
        }

        hub.start()
        println("the hub is back")
        DeviceClient.open(connectionString, options).use { device ->
            val left = device.flush(30.seconds)
            val account = device.account()
            println("accepted ${account.accepted} = delivered ${account.delivered} + queued $left")
            check(left == 0L && account.delivered == MESSAGES.toLong()) { "$left messages are left: $account" }
        }

        val read = hub.events().map { it.body.toInt() }
        check(read == (0 until MESSAGES).toList()) { "these events came: $read" }
        println("read $MESSAGES events, each once, in order")
        outbox.deleteRecursively()
    }
}
