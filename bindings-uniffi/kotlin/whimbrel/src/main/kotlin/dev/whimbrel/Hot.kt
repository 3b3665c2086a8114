package dev.whimbrel

import com.sun.jna.Native
import dev.whimbrel.internal.Device
import dev.whimbrel.internal.Draft
import dev.whimbrel.internal.FfiConverterTypeDraft
import java.nio.ByteBuffer

/**
 * The one call that is made for every message. The generated calls make several native structures each, which cost far more than
 * the message; here numbers and arrays cross, and nothing is made.
 */
internal class Hot(private val device: Device) {
    private val address = device.address().toLong()

    /** Takes the message in, or throws why not. */
    fun accept(token: Long, message: Message) {
        val draft = message.written
        val body = message.body
        val refused = Calls.whimbrel_uniffi_accept(address, token, body, body.size.toLong(), draft, draft.size.toLong())
        if (refused != 0) throw exceptionOf(checkNotNull(device.refusal(token.toULong())))
    }

    private object Calls {
        init {
            Native.register(Calls::class.java, library())
        }

        private fun library() = System.getProperty("uniffi.component.whimbrel.libraryOverride") ?: "whimbrel_uniffi"

        @Suppress("FunctionName")
        @JvmStatic
        external fun whimbrel_uniffi_accept(
            device: Long,
            token: Long,
            body: ByteArray,
            bodyLength: Long,
            draft: ByteArray,
            draftLength: Long,
        ): Int
    }
}

/** As it crosses; nothing for none. */
internal fun written(draft: Draft?): ByteArray {
    if (draft == null) return NOTHING
    val buffer = ByteBuffer.allocate(FfiConverterTypeDraft.allocationSize(draft).toInt())
    FfiConverterTypeDraft.write(draft, buffer)
    return buffer.array().copyOf(buffer.position())
}

private val NOTHING = ByteArray(0)
