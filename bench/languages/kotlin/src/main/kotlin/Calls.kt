// What one call across the border costs without I/O.
import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import dev.whimbrel.Message
import dev.whimbrel.Overflow
import dev.whimbrel.WhimbrelException
import kotlinx.coroutines.runBlocking
import kotlin.time.Duration

fun main(arguments: Array<String>) =
    runBlocking {
        val given = Given(arguments)
        val options =
            DeviceOptions(
                outboxInMemory = true,
                server = "mqtt://127.0.0.1:9",
                overflow = Overflow.DROP_OLDEST,
                closeDeadline = Duration.ZERO,
            )
        val device = DeviceClient.open(CONNECTION_STRING, options)
        val message = Message.telemetry(given.body)
        val refused = message.messageId("two words")
        val receipt = device.send(message)
        val costs =
            mapOf(
                "receipt_state" to cost { receipt.state() },
                "account" to cost { device.account() },
                "refused_send" to
                    cost {
                        try {
                            device.send(refused)
                        } catch (_: WhimbrelException.InvalidArgument) {
                            // As it is meant to be.
                        }
                    },
                "send_in_memory" to cost { device.send(message) },
            )
        device.shutdown()
        println("""{"nanoseconds":{${costs.entries.joinToString { (name, time) -> "\"$name\":$time" }}}}""")
    }

/** Nanoseconds of a call, the median of nine series, after some to warm up. */
private suspend fun cost(call: suspend () -> Unit): Long {
    val count = 1_000
    val series =
        List(15) {
            val start = System.nanoTime()
            repeat(count) { call() }
            (System.nanoTime() - start) / count
        }
    return series.drop(6).sorted()[4]
}
