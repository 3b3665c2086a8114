package dev.whimbrel

import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.io.File
import java.util.concurrent.TimeUnit
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds

class LifecycleTest {
    @Test
    fun `in the background nothing runs and nothing is lost, and in the foreground it goes on`() = test { ground ->
        val device = DeviceClient.open(ground.hub.createDevice("d1"), ground.options())
        val states = mutableListOf<ConnectionState>()
        val watching = launch { device.connectionChanges().collect { states += it } }
        device.connectionChanges().first { it == ConnectionState.Connected }
        for (round in 0 until 5) {
            val receipt = device.send(text("$round"))
            val command = async(start = CoroutineStart.UNDISPATCHED) { device.inbox().next() }
            assertEquals(0, device.suspend(1.minutes))
            assertEquals(ConnectionState.Suspended, device.connection)
            until("no thread is left: ${threads()}") { threads().isEmpty() }
            assertTrue(receipt.outcome() is Outcome.Delivered)
            assertEquals((round + 1).toLong(), device.account().delivered)
            for (call in listOf<suspend () -> Unit>({ device.send(text("x")) }, { device.sendMany(listOf(text("x"))) })) {
                val refused = runCatching { call() }.exceptionOrNull()
                assertTrue(refused is WhimbrelException.Closed && "resume" in refused.message!!) { "$refused" }
            }
            ground.hub.sendCommand("d1", "$round", "c$round")
            until("no thread was started for that: ${threads()}") { threads().isEmpty() }
            assertTrue(command.isActive) { "it waits on" }
            // The folder is free meanwhile.
            assertTrue(File(ground.outbox.path).canWrite())
            device.resume()
            val taken = command.await()!!
            assertEquals("$round", taken.body.decodeToString())
            taken.complete()
        }
        device.shutdown()
        watching.join()
        assertTrue(ConnectionState.Suspended in states && states.last() == ConnectionState.Closed) { "$states" }
        until("no thread is left: ${threads()}") { threads().isEmpty() }
        assertEquals((0 until 5).map { "$it" }, ground.hub.events().map { it.body })
    }

    @Test
    fun `a flush in the granted time says what is left, and that is delivered later`() = test { ground ->
        val device = DeviceClient.open(ground.hub.createDevice("d1"), ground.options())
        ground.hub.stop()
        val receipts = (0 until 7).map { device.send(text("$it")) }
        val outcome = async { receipts.last().outcome() }
        val flushed = async(start = CoroutineStart.UNDISPATCHED) { device.flush(1.minutes) }
        assertEquals(7, device.suspend(20.milliseconds))
        // What waits holds no thread.
        until("no thread is left: ${threads()}") { threads().isEmpty() }
        assertTrue(outcome.isActive && flushed.isActive)
        assertEquals(7, device.account().queued)
        assertEquals(ReceiptState.Queued, receipts.first().state())
        ground.hub.start()
        device.resume()
        assertTrue(outcome.await() is Outcome.Delivered)
        assertEquals(0, flushed.await())
        assertEquals(0, device.suspend(1.minutes))
        // Closing in the background is fine, too.
        device.shutdown()
        assertEquals(7, ground.hub.events().size)
    }

    @Test
    fun `suspending twice is fine, and resuming what runs`() = test { ground ->
        DeviceClient.open(ground.hub.createDevice("d1"), ground.options()).use { device ->
            device.resume()
            device.suspend(Duration.ZERO)
            assertEquals(0, device.suspend(Duration.ZERO))
            val all = (0 until 8).map { number -> async { if (number % 2 == 0) device.suspend(Duration.ZERO) else device.resume() } }
            all.forEach { it.await() }
            device.resume()
            assertTrue(device.send(text("x")).outcome() is Outcome.Delivered)
        }
    }

    @Test
    fun `storage that is not there yet is waited for`() = test { ground ->
        val outbox = File(ground.outbox, "box")
        val connectionString = ground.hub.createDevice("d1")
        val device = DeviceClient.open(connectionString, ground.options(outboxDir = outbox))
        val receipt = device.send(text("before"))
        assertEquals(0, device.suspend(1.minutes))
        // As before the first unlock of a phone: the folder cannot be reached.
        val away = File(ground.outbox, "away")
        assertTrue(outbox.renameTo(away))
        assertTrue(outbox.createNewFile())
        repeat(3) {
            val refused = runCatching { device.resume() }.exceptionOrNull()
            assertTrue(refused is WhimbrelException.JournalIo) { "$refused" }
            assertEquals(ConnectionState.Suspended, device.connection)
            until("no thread is left: ${threads()}") { threads().isEmpty() }
        }
        assertTrue(outbox.delete())
        assertTrue(away.renameTo(outbox))
        device.resume()
        assertTrue(receipt.outcome() is Outcome.Delivered)
        assertTrue(device.send(text("behind")).outcome() is Outcome.Delivered)
        device.shutdown()
    }

    @Test
    fun `a process that was stopped past the keep-alive does not say that it is connected`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        val java = File(System.getProperty("java.home"), "bin/java").path
        val builder = ProcessBuilder(java, "-cp", System.getProperty("java.class.path"), "dev.whimbrel.LifecycleTestKt")
        builder.command().addAll(listOf(connectionString, ground.outbox.path, ground.hub.server()))
        val child = builder.redirectError(ProcessBuilder.Redirect.INHERIT).start()
        try {
            val lines = child.inputStream.bufferedReader()
            fun heard() = generateSequence { lines.readLine() }
            assertTrue(heard().any { it == "Connected" })
            signal(child, "STOP")
            // The hub takes the silence for a lost connection and says so.
            until("the hub has given the device up") { !ground.hub.isConnected("d1") }
            signal(child, "CONT")
            // It learns that the connection was lost before it says anything else, and comes back.
            val told = heard().takeWhile { it != "Connected" }.toList()
            assertTrue(told.any { it.startsWith("Disconnected") }) { "told: $told" }
            child.outputStream.bufferedWriter().use { it.write("send\n") }
            assertEquals("delivered", heard().first { it == "delivered" || it.startsWith("failed") })
            assertTrue(child.waitFor(1, TimeUnit.MINUTES))
        } finally {
            child.destroyForcibly()
        }
        assertEquals(listOf("behind"), ground.hub.events().map { it.body })
    }

    private fun signal(child: Process, name: String) {
        val done = ProcessBuilder("kill", "-$name", "${child.pid()}").inheritIO().start().waitFor()
        assertEquals(0, done)
    }

    /** The threads of the library that run in this process. */
    private fun threads(): List<String> {
        val tasks = File("/proc/self/task").listFiles().orEmpty()
        // A thread may end while it is looked at.
        val names = tasks.mapNotNull { runCatching { File(it, "comm").readText().trim() }.getOrNull() }
        return names.filter { it.startsWith("whimbrel") }
    }
}

/** The process that is stopped: tells its connection, and sends when it is told to. */
suspend fun main(arguments: Array<String>): Unit = kotlinx.coroutines.coroutineScope {
    val (connectionString, outbox, server) = arguments
    val options =
        DeviceOptions(
            outboxDir = File(outbox),
            server = server,
            keepAlive = 1.seconds,
            backoff = 10.milliseconds..100.milliseconds,
        )
    val device = DeviceClient.open(connectionString, options)
    val watching = launch { device.connectionChanges().collect(::println) }
    launch(kotlinx.coroutines.Dispatchers.IO) {
        readLine()
        println(if (device.send(text("behind")).outcome() is Outcome.Delivered) "delivered" else "failed")
        device.shutdown()
    }
    watching.join()
}
