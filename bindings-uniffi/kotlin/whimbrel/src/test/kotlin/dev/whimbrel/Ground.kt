package dev.whimbrel

import dev.whimbrel.testing.LocalHub
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.delay
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import java.io.File
import java.nio.file.Files
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.minutes

/** What a test stands on: a hub and a folder, both gone at the end. */
internal class Ground(val hub: LocalHub, val outbox: File) {
    fun options(
        outboxDir: File? = outbox,
        keepAlive: Duration? = null,
        closeDeadline: Duration? = Duration.ZERO,
        outboxMaxMessages: Long? = null,
        protocol: Protocol? = null,
        listener: String = "mqtt",
    ) = DeviceOptions(
        outboxDir = outboxDir,
        server = hub.server(listener),
        backoff = 10.milliseconds..100.milliseconds,
        keepAlive = keepAlive,
        closeDeadline = closeDeadline,
        outboxMaxMessages = outboxMaxMessages,
        protocol = protocol,
    )
}

/** Runs a test, which may take so long; only a hang takes that. */
internal fun test(settings: Map<String, String> = emptyMap(), work: suspend CoroutineScope.(Ground) -> Unit) {
    val outbox = Files.createTempDirectory("outbox-").toFile()
    try {
        LocalHub(settings).use { hub ->
            runBlocking(Dispatchers.Default) { withTimeout(2.minutes) { work(Ground(hub, outbox)) } }
        }
    } finally {
        outbox.deleteRecursively()
    }
}

/** Waits until it is so; the test's own limit is the limit. */
internal suspend fun until(what: String, isSo: suspend () -> Boolean) {
    try {
        while (!isSo()) delay(2)
    } catch (gaveUp: kotlinx.coroutines.CancellationException) {
        throw IllegalStateException("it never came to be that $what", gaveUp)
    }
}

internal fun text(text: String) = Message.telemetry(text.encodeToByteArray())
