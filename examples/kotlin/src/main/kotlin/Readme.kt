import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import dev.whimbrel.Message
import dev.whimbrel.testing.LocalHub
import kotlinx.coroutines.flow.first
import kotlin.io.path.createTempDirectory

suspend fun main() {
    val hub = LocalHub() // In earnest: `whimbrel hub` somewhere, or Azure IoT Hub.
    val connectionString = hub.createDevice("thermostat-1")
    val dir = createTempDirectory().toFile()

    DeviceClient.open(connectionString, DeviceOptions(outboxDir = dir, server = hub.server())).use { device ->
        // Returns when the message is on disk, network or not.
        val receipt = device.send(Message.json("""{"t":21.5}""").property("room", "attic"))
        println(receipt.outcome()) // Optional: how it ended.

        hub.sendCommand("thermostat-1", "reboot", messageId = "c-1")
        val command = device.inbox().first()
        command.complete()
        println(hub.commandOutcome("thermostat-1", "c-1"))
    }
    hub.close()
}
