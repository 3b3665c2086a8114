import { type Cancel } from './calls.js';
import { EventReader, type EventsOptions } from './events.js';
import { FeedbackReader } from './feedback.js';
import { Registry } from './registry.js';
import { Tracked } from './tracked.js';
/** Options of {@link ServiceClient.connect}. Times are whole milliseconds. What is not given has its default in the core. */
export interface ServiceOptions {
    /** Connection string of the event log, where it is not that of the hub. */
    eventsConnectionString?: string | undefined;
    /** Address for commands, feedback and events, such as `amqps://hub.example:5671`. */
    server?: string | undefined;
    /** Address for the registry, such as `https://hub.example`. */
    httpServer?: string | undefined;
    /** Speaks through WebSockets, on port 443 unless the server says otherwise. */
    websocket?: boolean | undefined;
    /** Address of an HTTP proxy to connect through. */
    proxy?: string | undefined;
    /** File with the certificates of authorities to trust instead of the usual ones. */
    caFile?: string | undefined;
    /** The same as text. */
    caPem?: string | undefined;
    /** Allows connections without TLS to other machines. */
    allowUnencrypted?: boolean | undefined;
    /** How long connecting may take. */
    connectTimeoutMs?: number | bigint | undefined;
    /** How long sending a command may take. */
    sendTimeoutMs?: number | bigint | undefined;
    /** Shortest wait before connecting again; with `backoffMaxMs`. */
    backoffMinMs?: number | bigint | undefined;
    /** Longest wait before connecting again. */
    backoffMaxMs?: number | bigint | undefined;
    /** How long a token is valid. */
    tokenLifetimeMs?: number | bigint | undefined;
    /** How many outcomes are kept for those who ask later. */
    recentOutcomes?: number | bigint | undefined;
}
/** Which feedback the hub is to keep for {@link ServiceClient.feedback}. */
export type FeedbackWanted = 'none' | 'positive' | 'negative' | 'full';
/** What may be said about a command besides its body. */
export interface CommandOptions {
    /** Time to live in the device's queue, in milliseconds. Default: the hub's. */
    expiresInMs?: number | bigint | undefined;
    /** Default `none`. {@link Tracked} needs none. */
    feedback?: FeedbackWanted | undefined;
    /** Application properties. */
    properties?: Readonly<Record<string, string>> | undefined;
    /** Default: a random one. */
    messageId?: string | undefined;
    /** Joins this command to another message. */
    correlationId?: string | undefined;
    /** Who caused it. */
    userId?: string | undefined;
    /** The content type of the body. */
    contentType?: string | undefined;
    /** The character set of the body. */
    contentEncoding?: string | undefined;
}
/**
 * A back end's connection to its hub. It connects when something needs a connection, and again when one is lost. While a client
 * is open the process does not end by itself; {@link ServiceClient.close} lets it.
 */
export declare class ServiceClient implements AsyncDisposable {
    #private;
    /** Creates, changes and deletes device and module identities. */
    readonly registry: Registry;
    private constructor();
    /**
     * Checks the options and reads the files they name. Connecting happens when it is needed.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` naming the option.
     */
    static connect(connectionString: string, options?: ServiceOptions & Cancel): Promise<ServiceClient>;
    /**
     * Sends a command to a device; resolves when the hub has stored it in the device's queue. Any number may be sent at the same
     * time. At least once: when the connection is lost before the hub's answer, it is sent again with the same id. After an abort
     * the hub may have it.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT`, `WHIMBREL_PAYLOAD_TOO_LARGE`; `WHIMBREL_NOT_FOUND`: no such
     * device, or it is disabled; `WHIMBREL_QUEUE_FULL`, `WHIMBREL_THROTTLED`: later; `WHIMBREL_UNAUTHORIZED`; `WHIMBREL_TIMEOUT`:
     * the hub may have it; `WHIMBREL_CLOSED`.
     */
    send(deviceId: string, body: Uint8Array, options?: CommandOptions & Cancel): Promise<Tracked>;
    /**
     * {@link ServiceClient.send} with a value as JSON; content type and encoding say so unless given.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` for what is no JSON.
     */
    sendJson(deviceId: string, value: unknown, options?: CommandOptions & Cancel): Promise<Tracked>;
    /**
     * Follows a command that was sent before, also by another process, by its message id.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` for a device id that cannot be one; `WHIMBREL_CLOSED`.
     */
    tracked(deviceId: string, messageId: string): Tracked;
    /**
     * Reads the feedback the hub keeps for commands that asked for it.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_CLOSED`.
     */
    feedback(): FeedbackReader;
    /**
     * Begins to read events. With checkpoints, and unless partitions are chosen, all readers of a consumer group share the
     * partitions; when one changes hands, the events since the last checkpoint come again. When this resolves, the position `end` is
     * fixed: events stored from now on are seen. An abort leaves nothing behind.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT`, `WHIMBREL_NOT_FOUND` for a partition there is not,
     * `WHIMBREL_UNAUTHORIZED`, `WHIMBREL_UNREACHABLE`, `WHIMBREL_PROTOCOL`, `WHIMBREL_CLOSED`, and what the checkpoint store says.
     */
    events(options?: EventsOptions & Cancel): Promise<EventReader>;
    /**
     * Closes the client: what waits ends with `WHIMBREL_CLOSED`, readers give up their partitions and end. Closing twice is fine.
     */
    close(): Promise<void>;
    /** {@link ServiceClient.close}, for `await using`. */
    [Symbol.asyncDispose]: () => Promise<void>;
}
