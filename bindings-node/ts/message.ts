import { types } from 'node:util';
import { type Cancel } from './calls.js';
import { invalid } from './errors.js';
import { textOf, toJson } from './options.js';

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

/** @internal What is said about a message, as the native half takes it. */
export interface Draft {
  lane: string | undefined;
  /** Names and values by turns. */
  properties: string[] | undefined;
  messageId: string | undefined;
  contentType: string | undefined;
  contentEncoding: string | undefined;
  expiresInMs: number | bigint | undefined;
  /** All the rest, as JSON. */
  more: string | undefined;
}

/** @internal */
export function draftOf(operation: string, options: MessageOptions & Cancel): Draft {
  const draft: Draft = {
    lane: undefined,
    properties: undefined,
    messageId: undefined,
    contentType: undefined,
    contentEncoding: undefined,
    expiresInMs: undefined,
    more: undefined,
  };
  let rest: Record<string, unknown> | undefined;
  for (const name of Object.keys(options)) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined || value === null || name === 'signal') continue;
    switch (name) {
      case 'lane':
        draft.lane = textOf(operation, name, value);
        break;
      case 'messageId':
        draft.messageId = textOf(operation, 'message id', value);
        break;
      case 'contentType':
        draft.contentType = textOf(operation, 'content type', value);
        break;
      case 'contentEncoding':
        draft.contentEncoding = textOf(operation, 'content encoding', value);
        break;
      case 'expiresInMs':
        draft.expiresInMs = timeOf(operation, value);
        break;
      case 'properties':
        draft.properties = propertiesOf(operation, value);
        break;
      default:
        (rest ??= {})[name] = value;
    }
  }
  if (rest !== undefined) draft.more = toJson(operation, plain(operation, rest));
  return draft;
}

/** @internal All that is said about a message, under the names of the core; null for nothing. */
export function documentOf(operation: string, options: MessageOptions): object | null {
  const { properties, expiresInMs, ...rest } = options;
  const document = JSON.parse(toJson(operation, plain(operation, rest))) as Record<string, unknown>;
  if (properties !== undefined && properties !== null) {
    const texts = propertiesOf(operation, properties);
    document['properties'] = texts.flatMap((text, index) => (index % 2 === 0 ? [[text, texts[index + 1]]] : []));
  }
  if (expiresInMs !== undefined && expiresInMs !== null) document['expires_in_ms'] = timeOf(operation, expiresInMs).toString();
  return Object.keys(document).length === 0 ? null : document;
}

/** @internal The body, copied where another thread could write to it meanwhile. */
export function bodyOf(operation: string, body: unknown): Uint8Array {
  if (!types.isUint8Array(body)) {
    const text = 'a body is a Uint8Array; encode a string with new TextEncoder().encode(text), or use sendJson';
    throw invalid(operation, text);
  }
  if (body.length === 0 && isDetached(body)) throw invalid(operation, 'the buffer of the body was transferred away');
  return types.isSharedArrayBuffer(body.buffer) ? new Uint8Array(body) : body;
}

/** @internal A value as the body of a message. */
export function jsonOf(operation: string, value: unknown): Uint8Array {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw invalid(operation, `the value is no JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  if (text === undefined) throw invalid(operation, `a value of type ${typeof value} is no JSON`);
  return Buffer.from(text);
}

/** @internal What `sendJson` says where the program does not. */
export const JSON_CONTENT = { contentType: 'application/json', contentEncoding: 'utf-8' } as const;

function plain(operation: string, { creationTime, ...rest }: Record<string, unknown>): object {
  if (creationTime === undefined || creationTime === null) return rest;
  if (!types.isDate(creationTime)) throw invalid(operation, 'creationTime is not a Date');
  return { ...rest, creationTimeMs: creationTime.getTime() };
}

function timeOf(operation: string, value: unknown): number | bigint {
  if (typeof value === 'number' || typeof value === 'bigint') return value;
  throw invalid(operation, 'expiresInMs is not a number');
}

function propertiesOf(operation: string, properties: unknown): string[] {
  if (properties === null || typeof properties !== 'object') throw invalid(operation, 'properties is not an object');
  const texts: string[] = [];
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value !== 'string') throw invalid(operation, `the property ${JSON.stringify(name)} is not a string`);
    texts.push(name, value);
  }
  return texts;
}

/** Node 18 has no property that says so. */
function isDetached({ buffer }: Uint8Array): boolean {
  if (types.isSharedArrayBuffer(buffer)) return false;
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}
