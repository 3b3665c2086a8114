package dev.whimbrel

import com.sun.jna.CallbackThreadInitializer
import com.sun.jna.Native
import dev.whimbrel.internal.uniffiRustFutureContinuationCallbackImpl
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.withContext
import kotlin.coroutines.ContinuationInterceptor

/**
 * Waits for [work] of the native half, as [native]. What comes behind it in the program never runs on a thread of the library,
 * which has others to serve: a coroutine that has no dispatcher of its own goes on in [Dispatchers.Default].
 */
internal suspend inline fun <T> awaited(operation: String, crossinline work: suspend () -> T): T {
    val elsewhere = elsewhere() ?: return native(operation) { work() }
    return withContext(elsewhere) { native(operation) { work() } }
}

/** Where a coroutine goes on that would go on wherever it is told of something; null for one that says where itself. */
internal suspend fun elsewhere(): CoroutineDispatcher? {
    val own = currentCoroutineContext()[ContinuationInterceptor]
    return if (own == null || own === Dispatchers.Unconfined) Dispatchers.Default else null
}

/**
 * Threads of the library that tell news stay known to the virtual machine until they end: making them known anew for each piece
 * of news would cost more than the news. They do not keep the process alive.
 */
internal object Attached {
    init {
        Native.setCallbackThreadInitializer(
            uniffiRustFutureContinuationCallbackImpl,
            CallbackThreadInitializer(true, false, "whimbrel"),
        )
    }

    fun ensure() = Unit
}
