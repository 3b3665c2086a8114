// An app with a list of readings that goes to the background and comes back, as a phone has it: what the operating system tells
// an app are calls of `toBackground` and `toForeground` here.
import dev.whimbrel.ConnectionState
import dev.whimbrel.DeviceClient
import dev.whimbrel.DeviceOptions
import dev.whimbrel.Message
import dev.whimbrel.Outcome
import dev.whimbrel.Receipt
import dev.whimbrel.WhimbrelException
import dev.whimbrel.testing.LocalHub
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import java.io.File
import java.nio.file.Files
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds

/** What the app is made of: one client for as long as the process lives, and what is shown. */
private class App(private val device: DeviceClient, scope: CoroutineScope) {
    private val receipts = mutableListOf<Receipt>()

    // They go on waiting while the client is suspended, so the app starts them once.
    private val commands: Job = scope.launch {
        device.inbox().collect { command ->
            println("  the service says: ${command.body.decodeToString()}")
            command.complete()
        }
    }
    private val status: Job = scope.launch { device.connectionChanges().collect { println("  status line: $it") } }

    suspend fun read(value: Int) {
        // On the disk when this returns, whatever happens to the process next.
        receipts += device.send(Message.json("""{"value":$value}"""))
    }

    /** The operating system grants some time; then the process may be frozen, or killed. */
    suspend fun toBackground(granted: Duration) {
        val left = device.suspend(granted)
        println("in the background; $left readings are not delivered yet")
    }

    suspend fun toForeground() {
        try {
            device.resume()
        } catch (notYet: WhimbrelException.JournalIo) {
            // The storage is not there before the first unlock. The client stays suspended; the next time will do.
            println("still locked: ${notYet.message}")
            return
        }
        println("in the foreground")
    }

    suspend fun allDelivered() = receipts.all { it.outcome() is Outcome.Delivered }

    suspend fun end() {
        device.shutdown()
        commands.join()
        status.join()
    }
}

suspend fun main(): Unit = coroutineScope {
    val hub = LocalHub()
    val outbox: File = Files.createTempDirectory("outbox-").toFile()
    val options = DeviceOptions(outboxDir = outbox, server = hub.server(), backoff = 10.milliseconds..100.milliseconds)
    val device = DeviceClient.open(hub.createDevice("phone-1"), options)
    val app = App(device, this)

    app.read(1)
    app.toBackground(5.seconds)

    // Without a network the granted time passes, and what is left is told.
    hub.stop()
    app.toForeground()
    app.read(2)
    app.read(3)
    app.toBackground(50.milliseconds)
    check(device.account().queued == 2L) { "two readings wait in the outbox" }

    hub.start()
    hub.sendCommand("phone-1", "hello again")
    app.toForeground()
    device.connectionChanges().first { it == ConnectionState.Connected }
    check(app.allDelivered()) { "a reading was not delivered" }
    check(device.flush(30.seconds) == 0L)
    app.end()

    val read = hub.events().map { it.body }
    println("the hub has ${read.joinToString()}")
    check(read == listOf("""{"value":1}""", """{"value":2}""", """{"value":3}"""))
    outbox.deleteRecursively()
    hub.close()
}
