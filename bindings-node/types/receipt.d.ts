import { type Cancel } from './calls.js';
/** How a message ended. */
export type Outcome = {
    /** Durable at the hub. */
    kind: 'delivered';
    /** Partition of the event log, where the hub told it. */
    partition: number | null;
    /** Its number in the partition, where the hub told it. */
    sequence: bigint | null;
} | {
    /** Its time to live ended first. */
    kind: 'expired';
} | {
    /** Given up by this side. */
    kind: 'dropped';
    /** Why: to make room for a newer one, for want of room, or because its record on the disk was damaged. */
    reason: DropReason;
} | {
    /** Refused by the hub for good. */
    kind: 'rejected';
    /** What the hub said. */
    reason: string;
};
/** Why this side gave a message up. */
export type DropReason = 'made-room' | 'no-room' | 'damaged';
/** Where a message is: waiting, on its way, ended, or ended so long ago that its outcome is no longer kept. */
export type ReceiptState = {
    state: 'queued' | 'sent' | 'unknown';
} | {
    state: 'settled';
    outcome: Outcome;
};
/** What `send` resolves with: the message is safe, and this is how to follow it. */
export declare class Receipt {
    #private;
    private constructor();
    /** The id to find this receipt again with, also after a restart. */
    get messageId(): string;
    /** Where the message is now. */
    state(): ReceiptState;
    /**
     * Waits for the end; any number of times. An abort changes nothing for the message.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_CLOSED` when the client is closed first; ask again by the id after opening.
     * `WHIMBREL_NOT_FOUND` when the outcome is no longer kept.
     */
    outcome(options?: Cancel): Promise<Outcome>;
}
/** The receipts of `sendMany`, in the order of the messages. Each is made when it is asked for. */
export declare class Receipts implements Iterable<Receipt> {
    #private;
    private constructor();
    /** How many there are. */
    get length(): number;
    /** The receipt of one message; a negative index counts from the end. */
    at(index: number): Receipt | undefined;
    /** All of them. */
    [Symbol.iterator](): IterableIterator<Receipt>;
}
