import { type Cancel } from './calls.js';
/** What a received message says besides its body; null for what it does not say. */
export interface Head {
    /** Application properties. */
    readonly properties: Readonly<Record<string, string>>;
    /** The id the sender gave it. */
    readonly messageId: string | null;
    /** Joins it to another message. */
    readonly correlationId: string | null;
    /** Who caused it. */
    readonly userId: string | null;
    /** The content type of the body. */
    readonly contentType: string | null;
    /** The character set of the body. */
    readonly contentEncoding: string | null;
    /** When the content was made, by the sender's clock. */
    readonly creationTime: Date | null;
}
/**
 * A command, locked for this device until it is settled. It may be settled later than the call that received it, and in any
 * order. Unsettled it stays locked until the hub takes the lock back, and is delivered again then.
 */
export declare class Command implements Head {
    #private;
    /** What the service sent. */
    readonly body: Uint8Array;
    readonly properties: Readonly<Record<string, string>>;
    /** The id that the service finds the outcome by, where it gave one. */
    readonly messageId: string | null;
    readonly correlationId: string | null;
    readonly userId: string | null;
    readonly contentType: string | null;
    readonly contentEncoding: string | null;
    readonly creationTime: Date | null;
    /** Its number in the device's queue, where the protocol tells it (not on MQTT 3.1.1). */
    readonly sequence: bigint | null;
    /** When the hub took it in, where the protocol tells it (not on MQTT 3.1.1). */
    readonly enqueuedAt: Date | null;
    /** How many deliveries counted before this one, where the protocol tells it (not on MQTT 3.1.1). */
    readonly deliveryCount: number | null;
    private constructor();
    /**
     * It was dealt with: the hub removes it, and it is never handed out again. Resolves when that is recorded on this device, and
     * handed to the connection or answered by the hub, whichever the protocol has. An abort stops the waiting, not the settling.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when it was settled before, `WHIMBREL_LOCK_LOST` when the hub did not hold
     * it any more, `WHIMBREL_DISK_FULL` or `WHIMBREL_JOURNAL_IO` when it could not be recorded, `WHIMBREL_CLOSED`.
     */
    complete(options?: Cancel): Promise<void>;
    /**
     * Not now: the hub delivers it again, a limited number of times. An abort stops the waiting, not the settling.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_UNSUPPORTED` on MQTT 3.1.1: it stays locked, and can still be completed. Otherwise as
     * {@link Command.complete}.
     */
    abandon(options?: Cancel): Promise<void>;
    /**
     * Never: the hub dead-letters it, and it is never handed out again. An abort stops the waiting, not the settling.
     *
     * @throws {@link WhimbrelError} As {@link Command.abandon}.
     */
    reject(options?: Cancel): Promise<void>;
}
/**
 * The commands of a device: `for await (const command of device.inbox())`. The iteration ends when the client is closed; leaving
 * it closes nothing. Of several who wait, each command goes to one.
 */
export declare class Inbox implements AsyncIterable<Command> {
    #private;
    private constructor();
    /**
     * The next command, in the order of their arrival; waits for one. Null once the client is closed. A command is locked for this
     * device from the moment it is delivered, 60 s on a hub with default settings. An abort swallows none.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_UNSUPPORTED` for a module, which has no commands; what the hub said when it refused
     * to send commands; `WHIMBREL_JOURNAL_IO` when the outbox failed.
     */
    next(options?: Cancel): Promise<Command | null>;
    [Symbol.asyncIterator](): AsyncIterableIterator<Command>;
}
