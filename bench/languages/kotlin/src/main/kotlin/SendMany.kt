// whimbrel: one batch after the other.
import dev.whimbrel.Message
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking
import kotlin.math.min

fun main(arguments: Array<String>) =
    runBlocking(Dispatchers.Default) {
        val given = Given(arguments)
        val device = open(given)
        measure(given.messages) {
            var left = given.messages
            while (left > 0) {
                device.sendMany(List(min(given.batch, left)) { Message.telemetry(given.body) })
                left -= given.batch
            }
            device.flush(LONG)
        }
        close(device, given.messages)
    }
