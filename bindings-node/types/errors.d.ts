/** What kind of error it is; the table is the same in every language: `docs/errors.md`. */
export type ErrorKind = 'INVALID_ARGUMENT' | 'PAYLOAD_TOO_LARGE' | 'UNSUPPORTED' | 'CLOSED' | 'IN_USE' | 'CANCELLED' | 'OUTBOX_FULL' | 'EXPIRED' | 'REJECTED' | 'CONFLICT' | 'TIMEOUT' | 'NOT_FOUND' | 'QUEUE_FULL' | 'LOCK_LOST' | 'UNAUTHORIZED' | 'UNREACHABLE' | 'PROTOCOL' | 'THROTTLED' | 'JOURNAL_IO' | 'JOURNAL_CORRUPT' | 'JOURNAL_VERSION' | 'DISK_FULL' | 'INTERNAL';
/** The kind as Node's errors have it: `WHIMBREL_OUTBOX_FULL`. */
export type ErrorCode = `WHIMBREL_${ErrorKind}`;
/** Whether repeating the call can help. */
export type Retry = 'never' | 'later' | 'wait again' | 'after reopen' | "caller's choice";
/** Everything that can go wrong, but for an aborted wait, which rejects with the reason of its signal. */
export declare class WhimbrelError extends Error {
    /** `WHIMBREL_` and the kind. */
    readonly code: ErrorCode;
    /** What kind of error it is. */
    readonly kind: ErrorKind;
    /** The number of the kind, the same in every language. */
    readonly number: number;
    /** The call that failed, such as `device.send`. */
    readonly operation: string;
    /** Whether repeating the call can help. */
    readonly retry: Retry;
    /** How long the other side asked to wait, in milliseconds, where it did. */
    readonly retryAfterMs: number | null;
    /** More about it, by name. */
    readonly details: Readonly<Record<string, string>>;
    private constructor();
}
