package dev.whimbrel

import dev.whimbrel.internal.Circumstances
import dev.whimbrel.internal.Failure
import dev.whimbrel.internal.InternalException
import java.nio.charset.CharacterCodingException
import kotlin.coroutines.cancellation.CancellationException
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds

/**
 * What every call of this package that fails throws: one subclass for each kind of error, the same in every language. How a
 * message ended is no exception but an [Outcome].
 *
 * [message] is one complete line for people. Neither it nor [details] ever holds a payload, a key or a token.
 *
 * A coroutine that is cancelled gets its [CancellationException], as anywhere.
 */
public abstract class WhimbrelException internal constructor(said: Said) : Exception(said.reason) {
    /** The stable name of the kind, such as `OUTBOX_FULL`. */
    public val kind: String = said.about.kind

    /** The stable number of the kind. */
    public val code: Int = said.about.code.toInt()

    /** The call that failed, such as `device.send`. */
    public val operation: String = said.about.operation

    /** Whether repeating the call can help. */
    public val retry: Retry = Retry.of(said.about.retry)

    /** How long the other side asked to wait, where it did. */
    public val retryAfter: Duration? = said.about.retryAfterMs?.let(::durationOf)

    /** Texts by name, such as the `index` of the message that was refused. */
    public val details: Map<String, String> = said.details

    /** The texts of the causes, nearest first. */
    public val causes: List<String> = said.about.causes

    /** An option or argument cannot be used; the text says which and why. */
    public class InvalidArgument internal constructor(said: Said) : WhimbrelException(said)

    /** The message is over the size limit of its direction. */
    public class PayloadTooLarge internal constructor(said: Said) : WhimbrelException(said)

    /** The protocol or build in use cannot do this. */
    public class Unsupported internal constructor(said: Said) : WhimbrelException(said)

    /** The client was closed before the call, or is suspended. */
    public class Closed internal constructor(said: Said) : WhimbrelException(said)

    /** Another process, or another client of this one, has this directory open. */
    public class InUse internal constructor(said: Said) : WhimbrelException(said)

    /** The outbox is at its bound and its overflow policy is to refuse. */
    public class OutboxFull internal constructor(said: Said) : WhimbrelException(said)

    /** The time to live ended first. */
    public class Expired internal constructor(said: Said) : WhimbrelException(said)

    /** The other side refused this for good. */
    public class Rejected internal constructor(said: Said) : WhimbrelException(said)

    /** It exists already, was settled already, or changed meanwhile. */
    public class Conflict internal constructor(said: Said) : WhimbrelException(said)

    /** The deadline passed; the message is still kept and delivery goes on. */
    public class Timeout internal constructor(said: Said) : WhimbrelException(said)

    /** There is no such device, message or partition. */
    public class NotFound internal constructor(said: Said) : WhimbrelException(said)

    /** The device's queue of commands is at its bound. */
    public class QueueFull internal constructor(said: Said) : WhimbrelException(said)

    /** The lock on the command has ended; the hub delivers it again, or has ended it. */
    public class LockLost internal constructor(said: Said) : WhimbrelException(said)

    /** The credentials are wrong, expired, or do not allow this. */
    public class Unauthorized internal constructor(said: Said) : WhimbrelException(said)

    /** The other side could not be reached, or the connection was lost. */
    public class Unreachable internal constructor(said: Said) : WhimbrelException(said)

    /** The other side broke the protocol; the text names the rule. */
    public class Protocol internal constructor(said: Said) : WhimbrelException(said)

    /** The other side asked to slow down. */
    public class Throttled internal constructor(said: Said) : WhimbrelException(said)

    /** The disk refused a write or a sync; nothing more is accepted until the outbox is opened again. */
    public class JournalIo internal constructor(said: Said) : WhimbrelException(said)

    /** The outbox cannot be read at all. */
    public class JournalCorrupt internal constructor(said: Said) : WhimbrelException(said)

    /** The outbox was written by a newer version. */
    public class JournalVersion internal constructor(said: Said) : WhimbrelException(said)

    /** There is no space left on the disk; nothing was stored, and it works again when space returns. */
    public class DiskFull internal constructor(said: Said) : WhimbrelException(said)

    /** A defect in Whimbrel; please report it with the text. */
    public class Internal internal constructor(said: Said) : WhimbrelException(said)
}

/** Whether repeating a call that failed can help. */
public enum class Retry(internal val word: String) {
    /** The same call fails again. */
    NEVER("never"),

    /** The same call may succeed later. */
    LATER("later"),

    /** Wait again: the operation itself is still going on. */
    WAIT_AGAIN("wait again"),

    /** After closing and opening the outbox again. */
    AFTER_REOPEN("after reopen"),

    /** The caller decided to stop; the caller decides whether to start again. */
    CALLERS_CHOICE("caller's choice"),
    ;

    internal companion object {
        /** A word that is not known yet promises nothing. */
        fun of(word: String): Retry = entries.find { it.word == word } ?: NEVER
    }
}

/** What an error says. */
internal class Said(val reason: String, val details: Map<String, String>, val about: Circumstances)

/** The exception of a failure; a coroutine's own for a wait that was given up. */
internal fun exceptionOf(failure: Failure): Exception =
    when (failure) {
        is Failure.InvalidArgument -> WhimbrelException.InvalidArgument(Said(failure.reason, failure.details, failure.about))
        is Failure.PayloadTooLarge -> WhimbrelException.PayloadTooLarge(Said(failure.reason, failure.details, failure.about))
        is Failure.Unsupported -> WhimbrelException.Unsupported(Said(failure.reason, failure.details, failure.about))
        is Failure.Closed -> WhimbrelException.Closed(Said(failure.reason, failure.details, failure.about))
        is Failure.InUse -> WhimbrelException.InUse(Said(failure.reason, failure.details, failure.about))
        is Failure.Cancelled -> CancellationException(failure.reason)
        is Failure.OutboxFull -> WhimbrelException.OutboxFull(Said(failure.reason, failure.details, failure.about))
        is Failure.Expired -> WhimbrelException.Expired(Said(failure.reason, failure.details, failure.about))
        is Failure.Rejected -> WhimbrelException.Rejected(Said(failure.reason, failure.details, failure.about))
        is Failure.Conflict -> WhimbrelException.Conflict(Said(failure.reason, failure.details, failure.about))
        is Failure.Timeout -> WhimbrelException.Timeout(Said(failure.reason, failure.details, failure.about))
        is Failure.NotFound -> WhimbrelException.NotFound(Said(failure.reason, failure.details, failure.about))
        is Failure.QueueFull -> WhimbrelException.QueueFull(Said(failure.reason, failure.details, failure.about))
        is Failure.LockLost -> WhimbrelException.LockLost(Said(failure.reason, failure.details, failure.about))
        is Failure.Unauthorized -> WhimbrelException.Unauthorized(Said(failure.reason, failure.details, failure.about))
        is Failure.Unreachable -> WhimbrelException.Unreachable(Said(failure.reason, failure.details, failure.about))
        is Failure.Protocol -> WhimbrelException.Protocol(Said(failure.reason, failure.details, failure.about))
        is Failure.Throttled -> WhimbrelException.Throttled(Said(failure.reason, failure.details, failure.about))
        is Failure.JournalIo -> WhimbrelException.JournalIo(Said(failure.reason, failure.details, failure.about))
        is Failure.JournalCorrupt -> WhimbrelException.JournalCorrupt(Said(failure.reason, failure.details, failure.about))
        is Failure.JournalVersion -> WhimbrelException.JournalVersion(Said(failure.reason, failure.details, failure.about))
        is Failure.DiskFull -> WhimbrelException.DiskFull(Said(failure.reason, failure.details, failure.about))
        is Failure.Internal -> WhimbrelException.Internal(Said(failure.reason, failure.details, failure.about))
    }

/** Does [work] in the native half; what it throws is thrown as this package's own. */
internal inline fun <T> native(operation: String, work: () -> T): T =
    try {
        work()
    } catch (failure: Failure) {
        throw exceptionOf(failure)
    } catch (_: CharacterCodingException) {
        throw invalid(operation, "a text holds half of a surrogate pair, which is no character")
    } catch (defect: InternalException) {
        throw internal(operation, defect)
    }

internal fun invalid(operation: String, why: String): WhimbrelException {
    val about = Circumstances("INVALID_ARGUMENT", 101u, operation, "never", null, emptyList())
    return WhimbrelException.InvalidArgument(Said("$operation: $why", emptyMap(), about))
}

internal fun internal(operation: String, defect: Exception): WhimbrelException {
    val about = Circumstances("INTERNAL", 901u, operation, "never", null, listOf(defect.toString()))
    val text = "$operation: a defect in Whimbrel; please report it with the text: ${defect.message}"
    return WhimbrelException.Internal(Said(text, emptyMap(), about))
}

/** Whole milliseconds, as they cross the border. A part of a millisecond is cut off. */
internal fun millisecondsOf(operation: String, name: String, time: Duration): ULong {
    if (time.isNegative()) throw invalid(operation, "$name is negative: $time")
    return time.inWholeMilliseconds.toULong()
}

internal fun durationOf(milliseconds: ULong): Duration =
    if (milliseconds > Long.MAX_VALUE.toULong()) Duration.INFINITE else milliseconds.toLong().milliseconds

/** A number that is not negative, as it crosses the border. */
internal fun countOf(operation: String, name: String, number: Long): ULong {
    if (number < 0) throw invalid(operation, "$name is negative: $number")
    return number.toULong()
}
