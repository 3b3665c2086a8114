package dev.whimbrel

import kotlin.time.Duration
import dev.whimbrel.internal.Account as NativeAccount
import dev.whimbrel.internal.ConnectionState as NativeState
import dev.whimbrel.internal.Counters as NativeCounters
import dev.whimbrel.internal.Outcome as NativeOutcome

/** How a message ended. */
public sealed interface Outcome {
    /**
     * Durable at the hub, which told where, if it did.
     *
     * @property partition partition of the event log.
     * @property sequence sequence number in the partition, not negative.
     */
    public data class Delivered(val partition: Int?, val sequence: Long?) : Outcome

    /** Its time to live ended first. */
    public data object Expired : Outcome

    /**
     * Given up by this side.
     *
     * @property reason `made-room`, `no-room` or `damaged`.
     */
    public data class Dropped(val reason: String) : Outcome

    /**
     * Refused by the hub for good.
     *
     * @property reason what the hub said.
     */
    public data class Rejected(val reason: String) : Outcome
}

/** Where a message is. */
public sealed interface ReceiptState {
    /** In the outbox. */
    public data object Queued : ReceiptState

    /** On its way, not acknowledged. */
    public data object Sent : ReceiptState

    /** Ended. */
    public data class Settled(val outcome: Outcome) : ReceiptState

    /** Ended so long ago that its outcome is no longer kept, or the outbox is gone. */
    public data object Unknown : ReceiptState
}

/** What the link to the hub is doing. */
public sealed interface ConnectionState {
    /** The hub answers. */
    public data object Connected : ConnectionState

    /** On the way to it. */
    public data object Connecting : ConnectionState

    /** Not connected; it is tried again. [reason] says why, where that is known. */
    public data class Disconnected(val reason: String?) : ConnectionState

    /** The hub does not accept the credentials; it is tried again, seldom. [reason] is what the hub said. */
    public data class Unauthorized(val reason: String) : ConnectionState

    /** Suspended by the program, until it resumes. */
    public data object Suspended : ConnectionState

    /** The client was closed. */
    public data object Closed : ConnectionState
}

/**
 * The account of an outbox over the whole life of its folder:
 * `accepted == delivered + expired + dropped + rejected + queued`, always. None is negative.
 *
 * @property accepted messages taken in.
 * @property delivered durable at the hub.
 * @property expired ended by their time to live.
 * @property dropped given up, for any reason.
 * @property rejected refused by the hub.
 * @property queued still here.
 */
public data class Account(
    val accepted: Long,
    val delivered: Long,
    val expired: Long,
    val dropped: Long,
    val rejected: Long,
    val queued: Long,
)

/**
 * Figures of an outbox. None is negative.
 *
 * @property account the account.
 * @property queuedAlerts messages in the alert lane, part of `account.queued`.
 * @property queuedBytes bytes waiting.
 * @property oldestAge age of the oldest waiting message.
 * @property sent publishes handed to the network since opening, resends included.
 * @property droppedByReason dropped, by reason, over the whole life of the folder; reasons that never occurred are left out.
 * @property refused refused because the outbox was full, since opening; they were never accepted.
 * @property writtenBytes bytes written to the disk since opening.
 */
public data class Counters(
    val account: Account,
    val queuedAlerts: Long,
    val queuedBytes: Long,
    val oldestAge: Duration?,
    val sent: Long,
    val droppedByReason: Map<String, Long>,
    val refused: Long,
    val writtenBytes: Long,
)

internal fun outcomeOf(outcome: NativeOutcome): Outcome =
    when (outcome) {
        is NativeOutcome.Delivered -> Outcome.Delivered(outcome.partition?.toInt(), outcome.sequence?.toLong())
        is NativeOutcome.Expired -> Outcome.Expired
        is NativeOutcome.Dropped -> Outcome.Dropped(outcome.reason)
        is NativeOutcome.Rejected -> Outcome.Rejected(outcome.reason)
    }

internal fun connectionStateOf(state: NativeState): ConnectionState =
    when (state) {
        is NativeState.Connected -> ConnectionState.Connected
        is NativeState.Connecting -> ConnectionState.Connecting
        is NativeState.Disconnected -> ConnectionState.Disconnected(state.reason)
        is NativeState.Unauthorized -> ConnectionState.Unauthorized(state.reason)
        is NativeState.Suspended -> ConnectionState.Suspended
        is NativeState.Closed -> ConnectionState.Closed
    }

internal fun accountOf(account: NativeAccount) =
    Account(
        accepted = account.accepted.toLong(),
        delivered = account.delivered.toLong(),
        expired = account.expired.toLong(),
        dropped = account.dropped.toLong(),
        rejected = account.rejected.toLong(),
        queued = account.queued.toLong(),
    )

internal fun countersOf(counters: NativeCounters) =
    Counters(
        account = accountOf(counters.account),
        queuedAlerts = counters.queuedAlerts.toLong(),
        queuedBytes = counters.queuedBytes.toLong(),
        oldestAge = counters.oldestAgeMs?.let(::durationOf),
        sent = counters.sent.toLong(),
        droppedByReason = counters.droppedByReason.mapValues { (_, count) -> count.toLong() },
        refused = counters.refused.toLong(),
        writtenBytes = counters.writtenBytes.toLong(),
    )
