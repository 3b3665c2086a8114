// What the programs of this folder share: the command line, the figures, the line that tells them.

import com.sun.management.OperatingSystemMXBean
import dev.whimbrel.ConnectionState
import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import java.io.File
import java.lang.management.ManagementFactory
import java.util.concurrent.atomic.AtomicInteger
import kotlin.math.min
import kotlin.time.Duration.Companion.seconds

const val CONNECTION_STRING = "HostName=bench.example;DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"

/** Limit for the last acknowledgement. */
val LONG = 120.seconds

/** The command line, the same for every subject; a subject ignores what it has no use for. */
class Given(arguments: Array<String>) {
    private val values = arguments.toList().chunked(2).associate { (name, value) -> name.removePrefix("--") to value }
    val host = values["host"] ?: "127.0.0.1"
    val port = values.getValue("port").toInt()
    val messages = values["messages"]?.toInt() ?: 100_000
    val concurrency = values["concurrency"]?.toInt() ?: 1_000
    val batch = values["batch"]?.toInt() ?: 512
    val outbox = File(values.getValue("outbox"))
    val body = ByteArray(values["bytes"]?.toInt() ?: 256) { 'x'.code.toByte() }
}

/** An open client that is connected. */
suspend fun open(given: Given): DeviceClient {
    val options = DeviceOptions(outboxDir = given.outbox, server = "mqtt://${given.host}:${given.port}")
    val device = DeviceClient.open(CONNECTION_STRING, options)
    device.connectionChanges().first { it == ConnectionState.Connected }
    return device
}

/** Closes it; every message has been delivered, or the run does not count. */
suspend fun close(device: DeviceClient, messages: Int) {
    val delivered = device.account().delivered
    device.shutdown()
    check(delivered == messages.toLong()) { "not everything was delivered: $delivered of $messages" }
}

/** Does `work` and prints the line. The virtual machine starts cold, as that of a program does. */
suspend fun measure(messages: Int, work: suspend () -> Unit) {
    val system = ManagementFactory.getOperatingSystemMXBean() as OperatingSystemMXBean
    val processor = system.processCpuTime
    val start = System.nanoTime()
    work()
    val seconds = (System.nanoTime() - start) / 1e9
    val processorSeconds = (system.processCpuTime - processor) / 1e9
    val peak = File("/proc/self/status").readLines().first { it.startsWith("VmHWM") }.filter(Char::isDigit)
    println(
        """{"messages":$messages,"seconds":$seconds,"cpu_seconds":$processorSeconds,"peak_rss_kib":$peak,"lag_us":null,""" +
            """"version":"0.1.0","runtime":"Java ${Runtime.version()}, Kotlin ${KotlinVersion.CURRENT}"}""",
    )
}

/** Calls `one` for each message, `concurrency` at a time. */
suspend fun concurrently(messages: Int, concurrency: Int, one: suspend () -> Unit) {
    val left = AtomicInteger(messages)
    coroutineScope {
        repeat(min(concurrency, messages)) {
            launch { while (left.getAndDecrement() > 0) one() }
        }
    }
}
