/** The queue of the outbox a message waits in. Alerts overtake all waiting telemetry; order is kept within a lane. */
export type Lane = 'telemetry' | 'alert';
/** What `send` waits for: that the message is on the disk, that it will be written within the interval, or nothing. */
export type Durability = 'on-disk' | 'interval' | 'memory';
/** What a program may say about a message besides its body. */
export interface MessageOptions {
    /** Default `telemetry`. */
    lane?: Lane | undefined;
    /** Application properties. */
    properties?: Readonly<Record<string, string>> | undefined;
    /** The id that outcomes and receipts are found by, at most 128 characters. Without one the outbox makes one. */
    messageId?: string | undefined;
    /** Joins this message to another one. */
    correlationId?: string | undefined;
    /** Who caused the message. */
    userId?: string | undefined;
    /** The content type of the body, such as `application/json`. */
    contentType?: string | undefined;
    /** The character set of the body, such as `utf-8`. */
    contentEncoding?: string | undefined;
    /** When the content was made, by this machine's clock. */
    creationTime?: Date | undefined;
    /** Schema of the content. */
    messageSchema?: string | undefined;
    /** Output of a module. */
    outputName?: string | undefined;
    /** Interface id of a security message. */
    interfaceId?: string | undefined;
    /** Component the message belongs to. */
    component?: string | undefined;
    /** Time to live in milliseconds, counted from `send`, also while offline. Zero is refused. */
    expiresInMs?: number | bigint | undefined;
    /** What `send` waits for, instead of the outbox's own setting. */
    durability?: Durability | undefined;
}
/** A message with its body, for `sendMany`. */
export interface Message extends MessageOptions {
    /** The body; copied when it is taken in. */
    body: Uint8Array;
}
