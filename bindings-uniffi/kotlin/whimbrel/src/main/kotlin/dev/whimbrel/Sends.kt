package dev.whimbrel

import dev.whimbrel.internal.Device
import dev.whimbrel.internal.Stored
import kotlinx.coroutines.CancellableContinuation
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch
import kotlinx.coroutines.suspendCancellableCoroutine
import kotlinx.coroutines.withContext
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.atomic.AtomicBoolean
import java.util.concurrent.atomic.AtomicLong
import kotlin.coroutines.resume
import kotlin.coroutines.resumeWithException

/**
 * Who waits for which message to be safe. A future of the native half for each message would cost more than the message, so one
 * coroutine asks for all of them, for as long as there are any; after a commit it gets a whole batch.
 */
internal class Sends(private val device: Device) {
    private val waiting = ConcurrentHashMap<Long, CancellableContinuation<Receipt>>()
    private val tokens = AtomicLong()
    private val hot = Hot(device)
    private val asking = AtomicBoolean()

    suspend fun send(message: Message): Receipt {
        // Nobody goes on within the coroutine that asks for all.
        val elsewhere = elsewhere() ?: return sent(message)
        return withContext(elsewhere) { sent(message) }
    }

    private suspend fun sent(message: Message): Receipt =
        suspendCancellableCoroutine { continuation ->
            val token = tokens.incrementAndGet()
            waiting[token] = continuation
            try {
                hot.accept(token, message)
            } catch (refused: Throwable) {
                waiting.remove(token)
                throw refused
            }
            if (asking.compareAndSet(false, true)) CoroutineScope(Dispatchers.Default).launch { ask() }
        }

    private suspend fun ask() {
        while (true) {
            while (waiting.isNotEmpty()) {
                try {
                    native(SEND) { device.storedReady(null) }
                    device.takeStored().forEach(::tell)
                } catch (defect: Exception) {
                    // Nobody would tell them otherwise.
                    waiting.keys.forEach { token -> waiting.remove(token)?.resumeWithException(defect) }
                }
            }
            asking.set(false)
            // Somebody may have come in between who saw that this was still asking.
            if (waiting.isEmpty() || !asking.compareAndSet(false, true)) return
        }
    }

    private fun tell(stored: Stored) {
        when (stored) {
            is Stored.Safe -> waiting.remove(stored.token.toLong())?.resume(Receipt(device, stored.receipt))
            is Stored.Failed -> waiting.remove(stored.token.toLong())?.resumeWithException(exceptionOf(stored.failure))
        }
    }
}
