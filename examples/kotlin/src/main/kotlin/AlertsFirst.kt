// An alert overtakes all the telemetry that waits.
import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import dev.whimbrel.Message
import dev.whimbrel.Outcome
import dev.whimbrel.testing.LocalHub
import java.nio.file.Files
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds

private const val READINGS = 1_000

suspend fun main() {
    val readings = List(READINGS) { "$it" }
    LocalHub().use { hub ->
        val connectionString = hub.createDevice("boiler-7")
        hub.stop()
        val outbox = Files.createTempDirectory("outbox-").toFile()
        val options = DeviceOptions(outboxDir = outbox, server = hub.server(), backoff = 10.milliseconds..100.milliseconds)
        DeviceClient.open(connectionString, options).use { device ->
            // While the hub is away, readings pile up. Then something happens.
            device.sendMany(readings.map { Message.telemetry(it.encodeToByteArray()) })
            val alert = device.send(Message.alert("overheat".encodeToByteArray()).property("limit", "95"))
            println("$READINGS readings wait, and behind them an alert")

            hub.start()
            val outcome = alert.outcome()
            println("the alert ended as $outcome")
            val left = device.flush(30.seconds)
            check(outcome is Outcome.Delivered && left == 0L) { "the alert ended as $outcome, and $left messages are left" }
        }

        val read = hub.events().map { it.body }
        println("the first of ${read.size} events: ${read.first()}")
        check(read == listOf("overheat") + readings) { "the alert was not first, or the readings were out of order" }
        outbox.deleteRecursively()
    }
}
