package dev.whimbrel

import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.isActive
import kotlinx.coroutines.launch
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.concurrent.ConcurrentLinkedQueue

class InboxTest {
    @Test
    fun `commands come in order, and are settled as the program says`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        ground.hub.sendCommand("d1", "one", "c1", mapOf("how" to "gently"))
        ground.hub.sendCommand("d1", "two", "c2")
        ground.hub.sendCommand("d1", "three", "c3")
        DeviceClient.open(connectionString, ground.options()).use { device ->
            val (one, two, three) = device.inbox().take(3).toList()
            assertEquals(listOf("one", "two", "three"), listOf(one, two, three).map { it.body.decodeToString() })
            assertEquals(mapOf("how" to "gently"), one.properties)
            assertEquals(listOf("c1", 0L), listOf(one.messageId, one.deliveryCount))
            assertTrue(one.sequence!! >= 0 && one.enqueuedAt != null)
            three.abandon()
            two.reject()
            one.complete()
            val again = device.inbox().next()!!
            assertEquals(listOf("c3", 1L), listOf(again.messageId, again.deliveryCount))
            again.complete()
            val twice = runCatching { one.reject() }.exceptionOrNull()
            assertTrue(twice is WhimbrelException.Conflict) { "$twice" }
        }
        assertEquals(listOf("completed", "rejected", "completed"), listOf("c1", "c2", "c3").map { ground.hub.commandOutcome("d1", it) })
    }

    @Test
    fun `waits that are given up lose no command`() = test { ground ->
        DeviceClient.open(ground.hub.createDevice("d1"), ground.options()).use { device ->
            val inbox = device.inbox()
            val taken = ConcurrentLinkedQueue<String>()
            // Some give up again and again, at any moment; the others take.
            val fickle = List(4) {
                launch {
                    while (isActive) {
                        val waiting = launch(start = CoroutineStart.UNDISPATCHED) {
                            val command = inbox.next() ?: return@launch
                            taken += command.messageId!!
                            command.complete()
                        }
                        delay((0L..2L).random())
                        waiting.cancel()
                        waiting.join()
                    }
                }
            }
            val sending = (0 until 40).map { number -> async { ground.hub.sendCommand("d1", "x", "c$number") } }
            sending.awaitAll()
            until("all were taken: ${taken.size}") { taken.size >= 40 }
            fickle.forEach { it.cancel() }
            fickle.forEach { it.join() }
            assertEquals((0 until 40).map { "c$it" }.toSet(), taken.toSet())
            assertEquals(40, taken.size)
        }
    }

    @Test
    fun `a command the hub does not hold any more cannot be settled, and the next one comes`() = test { ground ->
        DeviceClient.open(ground.hub.createDevice("d1"), ground.options(protocol = Protocol.AMQP, listener = "amqp")).use { device ->
            ground.hub.sendCommand("d1", "x", "c1")
            val lost = device.inbox().next()!!
            ground.hub.whimbrel("command", "purge", "d1")
            val thrown = runCatching { lost.complete() }.exceptionOrNull()
            assertTrue(thrown is WhimbrelException.LockLost) { "$thrown" }
            ground.hub.sendCommand("d1", "x", "c2")
            val next = device.inbox().next()!!
            assertEquals("c2", next.messageId)
            next.complete()
        }
    }

    @Test
    fun `MQTT 3 cannot reject, and says so`() = test { ground ->
        val connectionString = ground.hub.createDevice("d1")
        ground.hub.sendCommand("d1", "one", "c1")
        DeviceClient.open(connectionString, ground.options(protocol = Protocol.MQTT3)).use { device ->
            val command = device.inbox().next()!!
            assertEquals(listOf(null, null), listOf(command.sequence, command.deliveryCount))
            assertThrows(WhimbrelException.Unsupported::class.java) { kotlinx.coroutines.runBlocking { command.reject() } }
            command.complete()
        }
        assertEquals("completed", ground.hub.commandOutcome("d1", "c1"))
    }
}
