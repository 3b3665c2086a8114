// A back end sends commands to a device, which deals with one and rejects another; the back end sees how they ended.
import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import dev.whimbrel.testing.LocalHub
import kotlinx.coroutines.flow.take
import java.nio.file.Files

suspend fun main() {
    LocalHub().use { hub ->
        val connectionString = hub.createDevice("valve-2")

        // The device is away. Its commands wait at the hub. The hub's HTTP interface plays the back end.
        hub.sendCommand("valve-2", "open", messageId = "c-1")
        hub.sendCommand("valve-2", "sing", messageId = "c-2")
        println("sent c-1 and c-2")

        val outbox = Files.createTempDirectory("outbox-").toFile()
        DeviceClient.open(connectionString, DeviceOptions(outboxDir = outbox, server = hub.server())).use { device ->
            device.inbox().take(2).collect { command ->
                val text = command.body.decodeToString()
                println("the device is asked to $text")
                // Nothing is acknowledged before the program says so, and what is completed never comes again.
                if (text == "open") command.complete() else command.reject()
            }
        }

        for ((id, expected) in listOf("c-1" to "completed", "c-2" to "rejected")) {
            val outcome = hub.commandOutcome("valve-2", id)
            println("$id ended as $outcome")
            check(outcome == expected) { "$id was to end as $expected" }
        }
        outbox.deleteRecursively()
    }
}
