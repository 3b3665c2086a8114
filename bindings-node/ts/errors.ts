/** What kind of error it is; the table is the same in every language: `docs/errors.md`. */
export type ErrorKind =
  | 'INVALID_ARGUMENT'
  | 'PAYLOAD_TOO_LARGE'
  | 'UNSUPPORTED'
  | 'CLOSED'
  | 'IN_USE'
  | 'CANCELLED'
  | 'OUTBOX_FULL'
  | 'EXPIRED'
  | 'REJECTED'
  | 'CONFLICT'
  | 'TIMEOUT'
  | 'NOT_FOUND'
  | 'QUEUE_FULL'
  | 'LOCK_LOST'
  | 'UNAUTHORIZED'
  | 'UNREACHABLE'
  | 'PROTOCOL'
  | 'THROTTLED'
  | 'JOURNAL_IO'
  | 'JOURNAL_CORRUPT'
  | 'JOURNAL_VERSION'
  | 'DISK_FULL'
  | 'INTERNAL';

/** The kind as Node's errors have it: `WHIMBREL_OUTBOX_FULL`. */
export type ErrorCode = `WHIMBREL_${ErrorKind}`;

/** Whether repeating the call can help. */
export type Retry = 'never' | 'later' | 'wait again' | 'after reopen' | "caller's choice";

/** Everything that can go wrong, but for an aborted wait, which rejects with the reason of its signal. */
export class WhimbrelError extends Error {
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

  private constructor(envelope: Envelope) {
    const cause = chain(envelope.causes);
    super(envelope.message, cause === undefined ? undefined : { cause });
    this.kind = envelope.kind;
    this.code = `WHIMBREL_${envelope.kind}`;
    this.number = envelope.code;
    this.operation = envelope.operation;
    this.retry = envelope.retry;
    this.retryAfterMs = envelope.retry_after_ms;
    this.details = envelope.details;
  }

  /** @internal */
  static from(envelope: Envelope): WhimbrelError {
    return new WhimbrelError(envelope);
  }
}

Object.defineProperty(WhimbrelError.prototype, 'name', { value: 'WhimbrelError', configurable: true, writable: true });

interface Envelope {
  kind: ErrorKind;
  code: number;
  message: string;
  operation: string;
  retry: Retry;
  retry_after_ms: number | null;
  details: Record<string, string>;
  causes: string[];
}

/** @internal The error of an envelope. */
export function opened(envelope: string): WhimbrelError {
  const fields = JSON.parse(envelope) as Envelope;
  return WhimbrelError.from({ ...fields, message: withOurNames(fields) });
}

/** Errors about options name them as the core does; here they have the names that the program knows. */
function withOurNames({ kind, message }: Envelope): string {
  if (kind !== 'INVALID_ARGUMENT' || !message.includes(': option ')) return message;
  const camelCase = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return message.replace(/`[a-z]+(?:_[a-z]+)+`|: option [a-z_.[\]0-9]+/g, camelCase);
}

/** @internal What was thrown, with the native half's own errors as ours. What the program's code threw stays as it is. */
export function failure(thrown: unknown): unknown {
  if (!(thrown instanceof Error)) return thrown;
  const { code } = thrown as NodeJS.ErrnoException;
  if (code === undefined) return thrown;
  if (code === 'GenericFailure') return thrown.message.startsWith('{') ? opened(thrown.message) : defect(thrown);
  return CONVERSIONS.has(code) ? invalid('call', thrown.message) : thrown;
}

/** @internal */
export function invalid(operation: string, message: string): WhimbrelError {
  return WhimbrelError.from({
    kind: 'INVALID_ARGUMENT',
    code: 101,
    message: `${operation}: ${message}`,
    operation,
    retry: 'never',
    retry_after_ms: null,
    details: {},
    causes: [],
  });
}

function defect({ message }: Error): WhimbrelError {
  return WhimbrelError.from({
    kind: 'INTERNAL',
    code: 901,
    message: 'call: a defect in Whimbrel; please report it with the text',
    operation: 'call',
    retry: 'never',
    retry_after_ms: null,
    details: { panic: message },
    causes: [],
  });
}

function chain(causes: string[]): Error | undefined {
  return causes.reduceRight<Error | undefined>((cause, text) => new Error(text, cause && { cause }), undefined);
}

/** What the generated code throws when a value has another type than its argument. */
const CONVERSIONS = new Set([
  'InvalidArg',
  'ObjectExpected',
  'StringExpected',
  'NameExpected',
  'FunctionExpected',
  'NumberExpected',
  'BooleanExpected',
  'ArrayExpected',
  'BigintExpected',
  'DateExpected',
  'ArrayBufferExpected',
]);
