import { type Cancel } from './calls.js';
import { Inbox } from './inbox.js';
import { type Durability, type Message, type MessageOptions } from './message.js';
import { type DropReason, Receipt, Receipts } from './receipt.js';
/** What a full outbox does: refuse the new message, or drop the oldest or the newest. */
export type Overflow = 'reject' | 'drop-oldest' | 'drop-newest';
/** How to speak to the hub; `auto` is MQTT 5, and MQTT 3.1.1 with a hub that does not speak it. */
export type Protocol = 'auto' | 'mqtt3' | 'mqtt5' | 'amqp' | 'http';
/** Options of {@link DeviceClient.open}. Times are whole milliseconds. What is not given has its default in the core. */
export interface DeviceOptions {
    /** Folder of the outbox; one open client at a time. Either this or `outboxInMemory` is needed. */
    outbox?: string | undefined;
    /** Keeps the outbox in memory: what is not delivered when the process ends is lost. */
    outboxInMemory?: boolean | undefined;
    /** What a full outbox does. Default `reject`. */
    overflow?: Overflow | undefined;
    /** What `send` waits for. Default `on-disk`. */
    durability?: Durability | undefined;
    /** Bound of the outbox in bytes. */
    outboxMaxBytes?: number | bigint | undefined;
    /** Bound of the outbox in messages. */
    outboxMaxMessages?: number | bigint | undefined;
    /** Messages that have no time to live of their own expire at this age. */
    outboxMaxAgeMs?: number | bigint | undefined;
    /** How often messages of durability `interval` are written to the disk. */
    syncIntervalMs?: number | bigint | undefined;
    /** How many outcomes are kept to be asked for by id. */
    keptOutcomes?: number | bigint | undefined;
    /** Address of the hub, such as `mqtts://hub.example:8883`, instead of what the connection string says. */
    server?: string | undefined;
    /** Speaks through a WebSocket, on port 443 unless the server says otherwise. */
    websocket?: boolean | undefined;
    /** Address of an HTTP proxy to connect through. */
    proxy?: string | undefined;
    /** File with the certificates of authorities to trust instead of the usual ones. */
    caFile?: string | undefined;
    /** The same as text. */
    caPem?: string | undefined;
    /** File of the device's certificate chain; with `clientKey`. */
    clientCertificate?: string | undefined;
    /** File of the key of `clientCertificate`. */
    clientKey?: string | undefined;
    /** Text of the device's certificate chain; with `clientKeyPem`. */
    clientCertificatePem?: string | undefined;
    /** Text of the key of `clientCertificatePem`. */
    clientKeyPem?: string | undefined;
    /** Allows connections without TLS to other machines. */
    allowUnencrypted?: boolean | undefined;
    /** Default `auto`. */
    protocol?: Protocol | undefined;
    /** How long a silent connection is trusted. */
    keepAliveMs?: number | bigint | undefined;
    /** How long connecting may take. */
    connectTimeoutMs?: number | bigint | undefined;
    /** How often commands are asked for over HTTP. */
    pollIntervalMs?: number | bigint | undefined;
    /** Messages on their way at the same time. */
    window?: number | undefined;
    /** Commands held at the same time. */
    inboxWindow?: number | undefined;
    /** Shortest wait before connecting again; with `backoffMaxMs`. */
    backoffMinMs?: number | bigint | undefined;
    /** Longest wait before connecting again. */
    backoffMaxMs?: number | bigint | undefined;
    /** How long `close` tries to deliver what is queued. */
    closeDeadlineMs?: number | bigint | undefined;
    /** How long a token is valid. */
    tokenLifetimeMs?: number | bigint | undefined;
}
/** What the link to the hub is doing. */
export interface ConnectionState {
    /** `unauthorized`: the hub does not accept the credentials; it is tried again, seldom. */
    readonly state: 'connected' | 'connecting' | 'disconnected' | 'unauthorized' | 'suspended' | 'closed';
    /** Why, where it is known. */
    readonly reason: string | null;
}
/**
 * The account of an outbox over the whole life of its folder:
 * `accepted === delivered + expired + dropped + rejected + queued`, always.
 */
export interface Account {
    /** Messages taken in. */
    readonly accepted: number;
    /** Durable at the hub. */
    readonly delivered: number;
    /** Ended by their time to live. */
    readonly expired: number;
    /** Given up, for any reason. */
    readonly dropped: number;
    /** Refused by the hub. */
    readonly rejected: number;
    /** Still here. */
    readonly queued: number;
}
/** Figures of an outbox. */
export interface Counters {
    /** The account. */
    readonly account: Account;
    /** Messages in the alert lane, part of `account.queued`. */
    readonly queuedAlerts: number;
    /** Bytes waiting. */
    readonly queuedBytes: number;
    /** Age of the oldest waiting message in milliseconds. */
    readonly oldestAgeMs: number | null;
    /** Publishes handed to the network since opening, resends included. */
    readonly sent: number;
    /** Dropped, by reason, over the whole life of the folder; reasons that never occurred are left out. */
    readonly droppedByReason: Readonly<Partial<Record<DropReason, number>>>;
    /** Refused because the outbox was full, since opening; they were never accepted. */
    readonly refused: number;
    /** Bytes written to the disk since opening. */
    readonly writtenBytes: number;
}
/**
 * A device's connection to its hub, with a durable outbox.
 *
 * Opening needs no network, and neither does sending: a message is safe when `send` resolves, and delivery goes on in the
 * background. While a client is open the process does not end by itself; {@link DeviceClient.close} lets it.
 */
export declare class DeviceClient implements AsyncDisposable {
    #private;
    private constructor();
    /**
     * Opens the outbox and resolves; connecting goes on in the background. Never waits for the network. An abort leaves nothing
     * behind but, perhaps, an empty outbox on the disk.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` naming the option; `WHIMBREL_IN_USE`, `WHIMBREL_JOURNAL_IO`,
     * `WHIMBREL_JOURNAL_VERSION`, `WHIMBREL_DISK_FULL` from the outbox; `WHIMBREL_UNSUPPORTED`.
     */
    static open(connectionString: string, options?: DeviceOptions & Cancel): Promise<DeviceClient>;
    /**
     * Takes a message in; resolves when it is on disk, or as safe as was chosen. The body is copied before this returns. An abort
     * stops the waiting; the message is in the outbox all the same.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT`, `WHIMBREL_PAYLOAD_TOO_LARGE`, `WHIMBREL_OUTBOX_FULL`,
     * `WHIMBREL_DISK_FULL`, `WHIMBREL_JOURNAL_IO`, `WHIMBREL_CLOSED`.
     */
    send(body: Uint8Array, options?: MessageOptions & Cancel): Promise<Receipt>;
    /**
     * {@link DeviceClient.send} with a value as JSON; content type and encoding say so unless given.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` for what is no JSON.
     */
    sendJson(value: unknown, options?: MessageOptions & Cancel): Promise<Receipt>;
    /**
     * Takes many in, in order, with one commit: all or none. An abort stops the waiting; the messages are in the outbox all the
     * same, or none of them is.
     *
     * @throws {@link WhimbrelError} As {@link DeviceClient.send}; `details.index` says which message.
     */
    sendMany(messages: Iterable<Uint8Array | Message>, options?: Cancel): Promise<Receipts>;
    /**
     * The receipt of a message by its id, also after a restart; null when it is not known, or not any more.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_JOURNAL_IO`, `WHIMBREL_CLOSED`.
     */
    receipt(messageId: string, options?: Cancel): Promise<Receipt | null>;
    /**
     * The commands for this device; always the same object. The first call has the hub send them, on this connection and each
     * later one.
     */
    inbox(): Inbox;
    /** What the link is doing. */
    get connection(): ConnectionState;
    /** What the link is doing, now and whenever it changes, until the client is closed. States that pass quickly may be left out. */
    connectionChanges(options?: Cancel): AsyncIterableIterator<ConnectionState>;
    /** The account of the outbox. */
    account(): Account;
    /** Figures. They may need a look at the disk, so they come later. */
    counters(options?: Cancel): Promise<Counters>;
    /**
     * Waits until everything is settled or `deadlineMs` milliseconds have passed; resolves with how many messages are still
     * queued. Never fails for a slow network. An abort changes nothing.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_CLOSED`, `WHIMBREL_INVALID_ARGUMENT`.
     */
    flush(deadlineMs: number | bigint, options?: Cancel): Promise<number>;
    /**
     * Takes no more messages and hands out no more commands, flushes for as long as `closeDeadlineMs` says, disconnects, closes the
     * outbox. What is left stays there for the next time; commands that are not settled stay with the hub. Closing twice is fine.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_JOURNAL_IO`, `WHIMBREL_DISK_FULL`; told once. It is closed all the same.
     */
    close(): Promise<void>;
    /** {@link DeviceClient.close}, for `await using`. */
    [Symbol.asyncDispose]: () => Promise<void>;
}
