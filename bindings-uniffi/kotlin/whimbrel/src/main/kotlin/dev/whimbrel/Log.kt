package dev.whimbrel

import dev.whimbrel.internal.LogSink
import dev.whimbrel.internal.LogLevel as NativeLevel
import dev.whimbrel.internal.LogRecord as NativeRecord
import dev.whimbrel.internal.setLog as setNativeLog

/** How serious a line of the log is. */
public enum class LogLevel {
    ERROR,
    WARN,
    INFO,
    DEBUG,
    TRACE,
}

/**
 * A line of the log. It never holds a payload, a key or a token.
 *
 * @property level how serious.
 * @property target where in the code: `whimbrel.device`, and so on.
 * @property message what happened, with its fields.
 * @property lost how many lines were lost before this one, because nobody took them.
 */
public data class LogRecord(val level: LogLevel, val target: String, val message: String, val lost: Long)

/** Whimbrel's log, of which there is one in a process. Nothing is logged unless a program asks for it. */
public object WhimbrelLog {
    /**
     * Sends the lines of the log to [sink] from now on, down to [level], instead of where they went. They come one after the
     * other, on a thread of the library, which an exception of the sink does not disturb. They come while a client is open and
     * not suspended; those of other times wait, at most 1,024 of them.
     */
    public fun send(level: LogLevel = LogLevel.INFO, sink: (LogRecord) -> Unit) {
        val native =
            when (level) {
                LogLevel.ERROR -> NativeLevel.ERROR
                LogLevel.WARN -> NativeLevel.WARN
                LogLevel.INFO -> NativeLevel.INFO
                LogLevel.DEBUG -> NativeLevel.DEBUG
                LogLevel.TRACE -> NativeLevel.TRACE
            }
        Attached.ensure()
        setNativeLog(native, Sink(sink))
    }

    /** Logs nothing from now on. */
    public fun stop(): Unit = setNativeLog(null, null)
}

private class Sink(private val sink: (LogRecord) -> Unit) : LogSink {
    override fun log(record: NativeRecord) {
        val level =
            when (record.level) {
                NativeLevel.ERROR -> LogLevel.ERROR
                NativeLevel.WARN -> LogLevel.WARN
                NativeLevel.INFO -> LogLevel.INFO
                NativeLevel.DEBUG -> LogLevel.DEBUG
                NativeLevel.TRACE -> LogLevel.TRACE
            }
        sink(LogRecord(level, record.target, record.message, record.lost.toLong()))
    }
}
