package dev.whimbrel

import dev.whimbrel.internal.Device
import dev.whimbrel.internal.Outgoing
import dev.whimbrel.internal.TakenState
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.withContext
import kotlin.time.Duration

/**
 * A device's connection to its hub, with a durable outbox.
 *
 * Opening needs no network, and neither does sending: a message is safe when [send] returns, and delivery goes on in the
 * background. All functions may be called from any thread and coroutine.
 *
 * A client that is never shut down goes on delivering until the process ends; garbage collection closes nothing.
 *
 * ```
 * DeviceClient.open(connectionString, DeviceOptions(outboxDir = dir)).use { device ->
 *     val receipt = device.send(Message.telemetry(bytes).property("room", "attic"))
 *     device.inbox().collect { it.complete() }
 * }
 * ```
 *
 * ## In an app
 *
 * When the app goes to the background, [suspend] delivers what it can in the time that is granted and lets go of everything:
 * connection, threads, files. [resume] in the foreground takes it all up again.
 */
public class DeviceClient private constructor(private val native: Device) : AutoCloseable {
    private val sends = Sends(native)
    private val commands by lazy { Inbox(native.inbox()) }

    /**
     * Takes a message in; returns when it is on disk, or as safe as was chosen. The body is copied before this waits.
     * Cancelling leaves the message either wholly in or wholly out; [account] tells.
     *
     * @throws WhimbrelException.InvalidArgument
     * @throws WhimbrelException.PayloadTooLarge
     * @throws WhimbrelException.OutboxFull
     * @throws WhimbrelException.DiskFull
     * @throws WhimbrelException.JournalIo
     * @throws WhimbrelException.Closed also while the client is suspended.
     */
    public suspend fun send(message: Message): Receipt = sends.send(message)

    /**
     * Takes many in, in order, with one commit: all or none, also when cancelled.
     *
     * @throws WhimbrelException as [send]; the detail `index` says which message.
     */
    public suspend fun sendMany(messages: Iterable<Message>): List<Receipt> {
        val receipts = awaited("device.send_all") { native.sendMany(messages.map { Outgoing(it.body, it.draft) }, null) }
        return receipts.map { Receipt(native, it) }
    }

    /**
     * The receipt of a message by its id, also after a restart; null when it is not known, or not any more.
     *
     * @throws WhimbrelException.JournalIo
     * @throws WhimbrelException.Closed
     */
    public suspend fun receipt(messageId: String): Receipt? =
        awaited("device.receipt") { native.receipt(messageId, null) }?.let { Receipt(native, it) }

    /**
     * The commands for this device; always the same object. The first call has the hub send them, on this connection and each
     * later one.
     */
    public fun inbox(): Inbox = native("device.inbox") { commands }

    /** What the link is doing. */
    public val connection: ConnectionState
        get() = native("device.connection") { connectionStateOf(native.connection()) }

    /** What the link is doing, now and whenever it changes, until the client is closed. States that pass quickly may be left out. */
    public fun connectionChanges(): Flow<ConnectionState> =
        flow {
            val changes = native(CHANGES) { native.connectionChanges() }
            while (true) {
                when (val taken = native(CHANGES) { changes.take() }) {
                    is TakenState.State -> emit(connectionStateOf(taken.state))
                    is TakenState.End -> break
                    // Nobody else takes from this one, so there is nobody to pass news on to.
                    is TakenState.Nothing -> awaited(CHANGES) { changes.ready(null) }
                }
            }
        }

    /** The account of the outbox. */
    public fun account(): Account = native("device.account") { accountOf(native.account()) }

    /** Figures. They may need a look at the disk. */
    public suspend fun counters(): Counters = awaited("device.counters") { countersOf(native.counters(null)) }

    /**
     * Waits until everything is settled or [deadline] has passed; returns how many messages are still queued. Never fails for a
     * slow network. Cancelling changes nothing.
     *
     * @throws WhimbrelException.InvalidArgument for a negative deadline.
     * @throws WhimbrelException.Closed
     */
    public suspend fun flush(deadline: Duration): Long {
        val milliseconds = millisecondsOf("device.flush", "the deadline", deadline)
        return awaited("device.flush") { native.flush(milliseconds, null).toLong() }
    }

    /**
     * Flushes for at most [budget], then lets go of everything: link, threads, files, lock. Returns how many messages are still
     * queued; they are delivered after [resume], or by the next process.
     *
     * Until then, calls that need the outbox fail with [WhimbrelException.Closed]; receipts, commands and connection states
     * that are waited for are waited for on. Cancelling stops the waiting, not the suspending.
     *
     * @throws WhimbrelException.InvalidArgument for a negative budget.
     * @throws WhimbrelException.Closed when the client was closed.
     * @throws WhimbrelException.JournalIo
     */
    public suspend fun suspend(budget: Duration): Long {
        val milliseconds = millisecondsOf("device.suspend", "the budget", budget)
        return awaited("device.suspend") { native.suspend(milliseconds, null).toLong() }
    }

    /**
     * Opens the outbox again and connects, without waiting for the network. When it fails, perhaps because the storage is not
     * available yet, the client stays suspended; call again. Cancelling stops the waiting, not the resuming.
     *
     * @throws WhimbrelException.InUse
     * @throws WhimbrelException.JournalIo
     * @throws WhimbrelException.DiskFull
     * @throws WhimbrelException.Closed when the client was closed.
     */
    public suspend fun resume(): Unit = awaited("device.resume") { native.resume(null) }

    /**
     * Takes no more messages and hands out no more commands, flushes for as long as [DeviceOptions.closeDeadline] says,
     * disconnects, closes the outbox. What is left stays there for the next time; commands that are not settled stay with the
     * hub. Cancelling stops the waiting, not the closing; call again to wait on. Twice is fine.
     *
     * @throws WhimbrelException.JournalIo and [WhimbrelException.DiskFull]; told once. It is closed all the same.
     */
    public suspend fun shutdown(): Unit = awaited(CLOSE) { native.shutdown(null) }

    /** [shutdown] for a thread that cannot suspend: it waits, for as long as [DeviceOptions.closeDeadline] and a little more. */
    override fun close(): Unit = native(CLOSE) { native.shutdownBlocking() }

    /**
     * Does [block] with this client and shuts it down at the end, whatever that is, without keeping a thread waiting. An
     * exception of [block] is thrown on; one of the end is added to it.
     */
    public suspend inline fun <R> use(block: (DeviceClient) -> R): R {
        var thrown: Throwable? = null
        try {
            return block(this)
        } catch (exception: Throwable) {
            thrown = exception
            throw exception
        } finally {
            shutdownBehind(thrown)
        }
    }

    @PublishedApi
    internal suspend fun shutdownBehind(thrown: Throwable?) {
        try {
            withContext(NonCancellable) { shutdown() }
        } catch (exception: Exception) {
            if (thrown == null) throw exception
            thrown.addSuppressed(exception)
        }
    }

    override fun toString(): String = "DeviceClient($connection)"

    public companion object {
        private const val CHANGES = "device.connection"
        private const val CLOSE = "device.close"

        /**
         * Opens the outbox and returns; connecting goes on in the background. Never waits for the network. Cancelling leaves
         * nothing behind but, perhaps, an empty outbox on the disk.
         *
         * @throws WhimbrelException.InvalidArgument naming the option.
         * @throws WhimbrelException.InUse
         * @throws WhimbrelException.JournalIo
         * @throws WhimbrelException.JournalVersion
         * @throws WhimbrelException.DiskFull
         * @throws WhimbrelException.Unsupported
         */
        public suspend fun open(connectionString: String, options: DeviceOptions = DeviceOptions()): DeviceClient {
            val given = options.native()
            Attached.ensure()
            // To the end, for a client that nobody gets would stay open; it is short.
            var opened: DeviceClient? = null
            try {
                withContext(NonCancellable) {
                    opened = DeviceClient(awaited(OPEN) { Device.open(connectionString, given, null) })
                }
                currentCoroutineContext().ensureActive()
                return checkNotNull(opened)
            } catch (cancelled: CancellationException) {
                withContext(NonCancellable) { opened?.suspend(Duration.ZERO) }
                throw cancelled
            }
        }
    }
}
