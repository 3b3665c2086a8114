// whimbrel: many sends at a time.
import dev.whimbrel.Message
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking

fun main(arguments: Array<String>) =
    runBlocking(Dispatchers.Default) {
        val given = Given(arguments)
        val device = open(given)
        measure(given.messages) {
            concurrently(given.messages, given.concurrency) { device.send(Message.telemetry(given.body)) }
            device.flush(LONG)
        }
        close(device, given.messages)
    }
