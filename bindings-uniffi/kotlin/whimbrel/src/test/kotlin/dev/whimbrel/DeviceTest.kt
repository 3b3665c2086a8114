package dev.whimbrel

import dev.whimbrel.internal.errorKinds
import dev.whimbrel.internal.panicLater
import dev.whimbrel.internal.panicNow
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.lang.reflect.Modifier
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds

class DeviceTest {
    @Test
    fun `offline first - what was sent without a hub is delivered when there is one, after a restart, in order`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        ground.hub.stop()
        val id =
            DeviceClient.open(connectionString, ground.options()).use { device ->
                val receipts = (0 until 20).map { device.send(text("$it")) }
                assertEquals(ReceiptState.Queued, receipts.first().state())
                assertEquals(20, device.account().queued)
                receipts.last().messageId
            }
        ground.hub.start()
        DeviceClient.open(connectionString, ground.options()).use { device ->
            assertEquals(0, device.flush(1.minutes))
            val last = device.receipt(id)!!
            assertTrue(last.outcome() is Outcome.Delivered)
            assertEquals(ReceiptState.Settled(last.outcome()), last.state())
            assertNull(device.receipt("no-such-message"))
            assertEquals(Account(20, 20, 0, 0, 0, 0), device.account())
        }
        assertEquals((0 until 20).map { "$it" }, ground.hub.events().map { it.body })
    }

    @Test
    fun `many coroutines send at the same time, and each gets its own receipt`() = test { ground ->
        DeviceClient.open(ground.hub.createDevice("d1"), ground.options()).use { device ->
            val receipts = (0 until 2_000).map { number -> async { number to device.send(text("$number").messageId("m$number")) } }
            for ((number, receipt) in receipts.awaitAll()) assertEquals("m$number", receipt.messageId)
            val many = device.sendMany((0 until 500).map { text("x") })
            assertEquals(500, many.map(Receipt::messageId).toSet().size)
            assertEquals(0, device.flush(1.minutes))
            assertEquals(2_500, device.account().delivered)
            val counters = device.counters()
            assertTrue(counters.sent >= 2_500 && counters.writtenBytes > 0 && counters.oldestAge == null) { "$counters" }
        }
    }

    @Test
    fun `all that a message says arrives`() = test { ground ->
        DeviceClient.open(ground.hub.createDevice("d1"), ground.options()).use { device ->
            val message = Message.json("""{"t":21.5}""").property("room", "attic").properties(mapOf("größe" to "ü")).messageId("m-1")
            val outcome = device.send(message.expiresIn(1.minutes).durability(Durability.INTERVAL)).outcome()
            assertTrue((outcome as Outcome.Delivered).sequence!! >= 0)
            val alert = device.send(Message.inLane(Lane.ALERT, ByteArray(0)))
            assertTrue(alert.outcome() is Outcome.Delivered)
        }
        val (told, empty) = ground.hub.events().sortedBy { it.body.isEmpty() }
        assertEquals("""{"t":21.5}""", told.body)
        assertEquals(mapOf("room" to "attic", "größe" to "ü"), told.properties)
        assertEquals("", empty.body)
    }

    @Test
    fun `cancelling leaves a message wholly in or wholly out`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        ground.hub.stop()
        DeviceClient.open(connectionString, ground.options()).use { device ->
            var told = 0L
            repeat(300) { number ->
                val sending = launch(start = CoroutineStart.UNDISPATCHED) {
                    device.send(text("$number"))
                    told += 1
                }
                sending.cancelAndJoin()
            }
            val accepted = device.account().accepted
            assertTrue(accepted in told..300) { "$told were told of, $accepted are in" }
            // And nothing is in the way of the next one.
            val receipt = device.send(text("last"))
            val waiting = async { receipt.outcome() }
            waiting.cancelAndJoin()
            ground.hub.start()
            assertTrue(receipt.outcome() is Outcome.Delivered)
            assertEquals(0, device.flush(1.minutes))
            assertEquals(accepted + 1, device.account().delivered)
        }
        assertEquals("last", ground.hub.events().last().body)
    }

    @Test
    fun `opening that is cancelled leaves the folder free`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        repeat(20) {
            val opening = launch { DeviceClient.open(connectionString, ground.options()).shutdown() }
            opening.cancelAndJoin()
            DeviceClient.open(connectionString, ground.options()).shutdown()
        }
    }

    @Test
    fun `use shuts down, and so does close, and twice is fine`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        val first = DeviceClient.open(connectionString, ground.options())
        assertThrows(WhimbrelException.InUse::class.java) { kotlinx.coroutines.runBlocking { DeviceClient.open(connectionString, ground.options()) } }
        val thrown = runCatching { first.use { error("of the block") } }.exceptionOrNull()
        assertEquals("of the block", thrown?.message)
        val closed = runCatching { first.send(text("x")) }.exceptionOrNull() as WhimbrelException.Closed
        assertEquals(listOf("CLOSED", 201, "device.send", Retry.NEVER), listOf(closed.kind, closed.code, closed.operation, closed.retry))
        assertEquals(ConnectionState.Closed, first.connection)
        assertNull(first.inbox().next())
        val second = DeviceClient.open(connectionString, ground.options())
        second.close()
        second.close()
        second.shutdown()
        DeviceClient.open(connectionString, ground.options()).shutdown()
    }

    @Test
    fun `every kind of error has its class`() {
        val classes = WhimbrelException::class.java.declaredClasses.filter { WhimbrelException::class.java.isAssignableFrom(it) }
        val names = classes.filter { !Modifier.isAbstract(it.modifiers) }.map { it.simpleName.replace(Regex("(?<=[a-z])(?=[A-Z])"), "_").uppercase() }
        // What is cancelled is a coroutine's own exception.
        assertEquals(errorKinds().map { it.name }.minus("CANCELLED").toSet(), names.toSet())
        for (kind in errorKinds()) assertEquals(kind.retry, Retry.of(kind.retry).word)
    }

    @Test
    fun `what is refused says why`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        DeviceClient.open(connectionString, ground.options()).use { device ->
            suspend fun refused(says: String, work: suspend () -> Unit) {
                val thrown = runCatching { work() }.exceptionOrNull()
                assertTrue(thrown is WhimbrelException.InvalidArgument && says in thrown.message!!) { "$thrown does not say $says" }
            }
            refused("time to live") { device.send(text("x").expiresIn(Duration.ZERO)) }
            refused("negative") { text("x").expiresIn((-1).seconds) }
            refused("negative") { device.flush((-1).seconds) }
            refused("surrogate") { device.send(text("x").messageId("\uD800")) }
            refused("surrogate") { device.send(text("x").property("a", "\uD800")) }
            refused("surrogate") { device.sendMany(listOf(text("x").property("\uDC00", "a"))) }
            refused("surrogate") { device.receipt("\uD800") }
            refused("surrogate") { Message.json("\"\uD800\"") }
            refused("window") { DeviceClient.open(connectionString, DeviceOptions(outboxInMemory = true, window = 65_536)) }
            refused("outboxMaxBytes") { DeviceClient.open(connectionString, DeviceOptions(outboxInMemory = true, outboxMaxBytes = -1)) }
            refused("connection string") { DeviceClient.open("nonsense", DeviceOptions(outboxInMemory = true)) }
            val many = runCatching { device.sendMany(listOf(text("x"), text("x").messageId("two words"))) }.exceptionOrNull()
            assertEquals("1", (many as WhimbrelException.InvalidArgument).details["index"])
            val large = runCatching { device.send(Message.telemetry(ByteArray(1 shl 20))) }.exceptionOrNull()
            assertTrue(large is WhimbrelException.PayloadTooLarge) { "$large" }
            assertEquals(0, device.account().accepted)
        }
    }

    @Test
    fun `a full outbox refuses and says that it may be tried later`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        ground.hub.stop()
        DeviceClient.open(connectionString, ground.options(outboxMaxMessages = 2)).use { device ->
            device.sendMany(listOf(text("1"), text("2")))
            val full = runCatching { device.send(text("3")) }.exceptionOrNull() as WhimbrelException.OutboxFull
            assertEquals(Retry.LATER, full.retry)
            assertEquals(1, device.counters().refused)
        }
    }

    @Test
    fun `a panic inside is an exception with its text`() = test { ground ->
        DeviceClient.open(ground.hub.createDevice("d1"), ground.options()).use { device ->
            val panics = listOf<suspend () -> Unit>({ panicNow("of a test") }, { panicLater("of a test", null) })
            for (panic in panics) {
                val thrown = runCatching { native("test.panic") { panic() } }.exceptionOrNull()
                assertTrue(thrown is WhimbrelException.Internal && thrown.details["panic"] == "of a test") { "$thrown" }
            }
            assertTrue(device.send(text("x")).outcome() is Outcome.Delivered)
        }
    }

    @Test
    fun `a coroutine without a dispatcher never goes on on a thread of the library`() = test { ground ->
        fun here() = java.io.File("/proc/thread-self/comm").readText().trim()
        kotlinx.coroutines.withContext(kotlinx.coroutines.Dispatchers.Unconfined) {
            val device = DeviceClient.open(ground.hub.createDevice("d1"), ground.options())
            assertTrue(!here().startsWith("whimbrel")) { here() }
            repeat(20) {
                val receipt = device.send(text("x"))
                // Whoever blocks here holds up nobody else.
                kotlinx.coroutines.runBlocking(kotlinx.coroutines.Dispatchers.Default) { device.send(text("y")).outcome() }
                receipt.outcome()
                assertTrue(!here().startsWith("whimbrel")) { here() }
            }
            ground.hub.sendCommand("d1", "x", "c1")
            val command = device.inbox().next()!!
            assertTrue(!here().startsWith("whimbrel")) { here() }
            command.complete()
            assertEquals("completed", ground.hub.commandOutcome("d1", "c1"))
            device.shutdown()
            assertTrue(!here().startsWith("whimbrel")) { here() }
        }
    }

    @Test
    fun `the connection is told, and the flow ends with the client`() = test { ground ->
        val device = DeviceClient.open(ground.hub.createDevice("d1"), ground.options())
        val states = mutableListOf<ConnectionState>()
        val watching = launch { device.connectionChanges().collect { states += it } }
        device.connectionChanges().first { it == ConnectionState.Connected }
        ground.hub.stop()
        device.connectionChanges().first { it is ConnectionState.Disconnected }
        ground.hub.start()
        device.connectionChanges().first { it == ConnectionState.Connected }
        val waiting = async { device.inbox().next() }
        device.shutdown()
        watching.join()
        assertNull(waiting.await())
        assertEquals(ConnectionState.Closed, states.last())
        assertTrue(states.any { it is ConnectionState.Disconnected }) { "$states" }
    }

    @Test
    fun `the log reaches the sink, which may throw`() = test { ground ->
        val lines = java.util.concurrent.ConcurrentLinkedQueue<LogRecord>()
        WhimbrelLog.send(LogLevel.DEBUG) {
            lines += it
            error("a sink that throws")
        }
        try {
            DeviceClient.open(ground.hub.createDevice("d1"), ground.options()).use { device ->
                until("the first line came") { lines.any { it.message.startsWith("outbox open (") && it.level == LogLevel.INFO } }
                // They also come from what is started after it had all ended.
                device.suspend(Duration.ZERO)
                device.resume()
                until("the second line came") { lines.any { it.message.startsWith("outbox open again") } }
            }
        } finally {
            WhimbrelLog.stop()
        }
        assertTrue(lines.all { it.target.startsWith("whimbrel") }) { "$lines" }
    }
}
