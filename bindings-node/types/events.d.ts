import { type Cancel } from './calls.js';
import { type Head } from './inbox.js';
/** Where to begin in a partition. */
export type Position = 'beginning' | 'end' | {
    /** The event with this number. */
    sequence: bigint | number;
} | {
    /** The event at this offset. */
    offset: string;
} | {
    /** The first event stored at this time or later. */
    time: Date;
};
/** Where checkpoints are kept. One object may serve any number of readers. */
export declare abstract class Checkpoints {
    #private;
}
/** Checkpoints in files of a folder, for readers on one machine. The folder is opened, and made, with the first reader. */
export declare class FileCheckpoints extends Checkpoints {
    /** @param folder The folder. */
    constructor(folder: string);
}
/** Checkpoints on the hub, for readers on any machine. Our hub only. */
export declare class HubCheckpoints extends Checkpoints {
    constructor();
}
/** Checkpoints in memory, for readers that share this object. */
export declare class MemoryCheckpoints extends Checkpoints {
    constructor();
}
/** How to read events. */
export interface EventsOptions {
    /** The consumer group. Default `$Default`. */
    group?: string | undefined;
    /** Where to begin in partitions without a checkpoint. Default `beginning`. */
    position?: Position | undefined;
    /** Begins behind these checkpoints, and makes {@link Event.checkpoint} possible. */
    checkpoints?: Checkpoints | undefined;
    /** Reads these partitions only, and shares them with nobody. Default: all there are. */
    partitions?: readonly number[] | undefined;
    /** Events of a partition that are fetched before they are asked for, at most. */
    prefetch?: number | undefined;
    /** How often a reader says that it still has its partitions, in milliseconds; with `ownershipLastsMs`. */
    ownershipRenewMs?: number | bigint | undefined;
    /** How long others believe it, in milliseconds. */
    ownershipLastsMs?: number | bigint | undefined;
}
/** A message of a device, as it was stored. */
export declare class Event implements Head {
    #private;
    /** The device that sent it, as the hub knows it; empty when the hub does not say. */
    readonly deviceId: string;
    /** The module that sent it. */
    readonly moduleId: string | null;
    /** The generation of the device: another one is another device of the same name. */
    readonly generation: string | null;
    /** How the sender proved itself, as JSON. */
    readonly authMethod: string | null;
    /** What kind of event it is; `Telemetry` for messages of devices. */
    readonly source: string | null;
    /** Its partition. */
    readonly partition: number;
    /** Its number in the partition. */
    readonly sequence: bigint;
    /** Its offset in the partition. */
    readonly offset: string;
    /** When it was stored, by the hub's clock. */
    readonly enqueuedAt: Date;
    /** What was sent. */
    readonly body: Uint8Array;
    readonly properties: Readonly<Record<string, string>>;
    readonly messageId: string | null;
    readonly correlationId: string | null;
    readonly userId: string | null;
    readonly contentType: string | null;
    readonly contentEncoding: string | null;
    readonly creationTime: Date | null;
    /** Schema of the content. */
    readonly messageSchema: string | null;
    /** Output of the module. */
    readonly outputName: string | null;
    /** Interface id of a security message. */
    readonly interfaceId: string | null;
    /** Component the message belongs to. */
    readonly component: string | null;
    private constructor();
    /**
     * Stores that this event, and all before it in its partition, were dealt with: readers of the group begin behind it. Every few
     * events or seconds is often enough. An abort stops the waiting, not the storing.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_UNSUPPORTED` for a reader without checkpoints; `WHIMBREL_CONFLICT` when another
     * reader has the partition now: it gets this event again; and what the store says.
     */
    checkpoint(options?: Cancel): Promise<void>;
}
/**
 * A stream of events, in order within each partition: `for await (const event of reader)`. Reconnects by itself and goes on
 * behind the last event it handed out, without a gap. To be closed when it is not needed any more, so that others take over its
 * partitions at once.
 */
export declare class EventReader implements AsyncIterable<Event>, AsyncDisposable {
    #private;
    /** What this reader is called among those that share partitions; random. */
    readonly name: string;
    private constructor();
    /**
     * The next event; waits for it. Null after the reader or its client was closed. An abort loses nothing.
     *
     * @throws {@link WhimbrelError} What will not pass by itself: `WHIMBREL_UNAUTHORIZED`, `WHIMBREL_NOT_FOUND` for the consumer
     * group, `WHIMBREL_PROTOCOL` for an event that cannot be read and is passed over, the checkpoint store's. The reader goes on.
     */
    next(options?: Cancel): Promise<Event | null>;
    /** Stops reading and gives up its partitions. Events that were not handed out are not lost. Closing twice is fine. */
    close(): Promise<void>;
    [Symbol.asyncIterator](): AsyncIterableIterator<Event>;
    /** {@link EventReader.close}, for `await using`. */
    [Symbol.asyncDispose]: () => Promise<void>;
}
