// A device sends a measurement, and a back end reads it.
import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import dev.whimbrel.Message
import dev.whimbrel.Outcome
import dev.whimbrel.testing.LocalHub
import java.nio.file.Files
import kotlin.time.Duration.Companion.hours

suspend fun main() {
    // A hub for this program. In earnest it is `whimbrel hub` somewhere, or Azure IoT Hub.
    LocalHub().use { hub ->
        val connectionString = hub.createDevice("thermostat-1")

        // Opening does not wait for the network. The outbox is a folder that survives this process.
        val outbox = Files.createTempDirectory("outbox-").toFile()
        DeviceClient.open(connectionString, DeviceOptions(outboxDir = outbox, server = hub.server())).use { device ->
            // When this returns, the message is on the disk: it is Whimbrel's job now.
            val receipt = device.send(Message.json("""{"t":21.5}""").property("room", "attic").expiresIn(1.hours))

            // Nobody has to wait for the outcome; it can also be asked for later, by receipt.messageId.
            val outcome = receipt.outcome()
            check(outcome is Outcome.Delivered) { "it ended as $outcome" }
            println("stored in partition ${outcome.partition} as number ${outcome.sequence}")
        }

        // The back end's client is in Rust, Python and Node; here the command line plays it.
        val event = hub.events().single()
        println("${event.device} in the ${event.properties["room"]}: ${event.body}")
        check(event.body == """{"t":21.5}""") { "this is not what was sent" }
        outbox.deleteRecursively()
    }
}
