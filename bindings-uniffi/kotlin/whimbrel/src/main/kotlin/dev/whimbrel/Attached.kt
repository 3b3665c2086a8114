package dev.whimbrel

import com.sun.jna.CallbackThreadInitializer
import com.sun.jna.Native
import dev.whimbrel.internal.uniffiRustFutureContinuationCallbackImpl

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
