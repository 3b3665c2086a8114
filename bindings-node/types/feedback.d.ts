import { type Cancel } from './calls.js';
import type { CommandOutcome } from './tracked.js';
/** The hub's record of how a command ended. */
export interface Feedback {
    /** The message id of the command. */
    readonly messageId: string;
    /** The device it was for. */
    readonly deviceId: string;
    /** The generation of that device: another one is another device of the same name. */
    readonly generation: string;
    /** How it ended; null for a word that is not in the contract. */
    readonly outcome: CommandOutcome | null;
    /** When it ended, by the hub's clock. */
    readonly endedAt: Date | null;
}
/** Some records, locked for this reader. To be settled before the lock ends, 60 s on a hub with default settings. */
export declare class FeedbackBatch {
    #private;
    /** The records, oldest first. */
    readonly records: readonly Feedback[];
    /** When the newest record was made, by the hub's clock. */
    readonly enqueuedAt: Date | null;
    private constructor();
    /**
     * Removes the records from the queue. When the connection is lost just then they may come once more. An abort stops the
     * waiting, not the settling.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_LOCK_LOST` when the connection it came on has ended; `WHIMBREL_CONFLICT` when it was
     * settled before.
     */
    complete(options?: Cancel): Promise<void>;
    /**
     * Gives the records back; the hub delivers them again, a limited number of times. An abort stops the waiting, not the settling.
     *
     * @throws {@link WhimbrelError} As {@link FeedbackBatch.complete}.
     */
    abandon(options?: Cancel): Promise<void>;
}
/**
 * Takes feedback from the hub's queue: `for await (const batch of service.feedback())`. Reconnects by itself. The queue is one
 * for the hub: of several readers, in whatever process, each gets a part of it. To be closed when it is not needed any more.
 */
export declare class FeedbackReader implements AsyncIterable<FeedbackBatch>, AsyncDisposable {
    #private;
    private constructor();
    /**
     * The next batch; waits for it. Null after the reader or its client was closed. An abort loses nothing.
     *
     * @throws {@link WhimbrelError} What will not pass by itself, such as `WHIMBREL_UNAUTHORIZED`; the reader goes on trying.
     */
    next(options?: Cancel): Promise<FeedbackBatch | null>;
    /** Stops reading. Batches that were not settled go back to the queue. Closing twice is fine. */
    close(): Promise<void>;
    [Symbol.asyncIterator](): AsyncIterableIterator<FeedbackBatch>;
    /** {@link FeedbackReader.close}, for `await using`. */
    [Symbol.asyncDispose]: () => Promise<void>;
}
