import { types } from 'node:util';
import type { Device } from '../native.js';
import { attempt, call, type Cancel, environment, forget, Lease, NOBODY, nothing, pull, token, wait, type Waiter, watch } from './calls.js';
import { disposable } from './dispose.js';
import { failure, invalid } from './errors.js';
import { Inbox } from './inbox.js';
import { bodyOf, documentOf, draftOf, type Durability, JSON_CONTENT, jsonOf, type Message, type MessageOptions } from './message.js';
import { native } from './native.js';
import { textOf, toJson } from './options.js';
import { type DropReason, type Ended, type Issuer, Receipt, Receipts } from './receipt.js';

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
export class DeviceClient implements AsyncDisposable {
  readonly #native: Device;
  readonly #place: number;
  readonly #issuer: Issuer;
  readonly #lease: Lease;
  #inbox: Inbox | undefined;

  private constructor(native: Device) {
    this.#native = native;
    this.#place = native.place;
    this.#issuer = new DeviceIssuer(this, native);
    this.#lease = new Lease(this, 'DeviceClient');
  }

  /**
   * Opens the outbox and resolves; connecting goes on in the background. Never waits for the network. An abort leaves nothing
   * behind but, perhaps, an empty outbox on the disk.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` naming the option; `WHIMBREL_IN_USE`, `WHIMBREL_JOURNAL_IO`,
   * `WHIMBREL_JOURNAL_VERSION`, `WHIMBREL_DISK_FULL` from the outbox; `WHIMBREL_UNSUPPORTED`.
   */
  static async open(connectionString: string, options?: DeviceOptions & Cancel): Promise<DeviceClient> {
    const text = textOf('device.open', 'connection string', connectionString);
    const json = toJson('device.open', options);
    return call(DeviceClient, options, (token) => environment.open(token, text, json), (device) => {
      return new DeviceClient(device as Device);
    });
  }

  /**
   * Takes a message in; resolves when it is on disk, or as safe as was chosen. The body is copied before this returns. An abort
   * stops the waiting; the message is in the outbox all the same.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT`, `WHIMBREL_PAYLOAD_TOO_LARGE`, `WHIMBREL_OUTBOX_FULL`,
   * `WHIMBREL_DISK_FULL`, `WHIMBREL_JOURNAL_IO`, `WHIMBREL_CLOSED`.
   */
  send(body: Uint8Array, options?: MessageOptions & Cancel): Promise<Receipt> {
    return new Promise((resolve, reject) => {
      const given = token();
      let id: string | undefined;
      try {
        const bytes = bodyOf('device.send', body);
        if (options === undefined || options === null) {
          native.send(this.#place, given, bytes);
        } else {
          if (options.signal?.aborted) throw options.signal.reason;
          const draft = draftOf('device.send', options);
          id = draft.messageId;
          const { lane, properties, messageId, contentType, contentEncoding, expiresInMs, more } = draft;
          native.sendWith(this.#place, given, bytes, lane, properties, messageId, contentType, contentEncoding, expiresInMs, more);
        }
      } catch (thrown) {
        reject(failure(thrown));
        return;
      }
      const sending = new Sending(this.#issuer, id, resolve, reject);
      wait(given, sending);
      if (options?.signal) sending.stopWith(given, options.signal);
    });
  }

  /**
   * {@link DeviceClient.send} with a value as JSON; content type and encoding say so unless given.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` for what is no JSON.
   */
  async sendJson(value: unknown, options?: MessageOptions & Cancel): Promise<Receipt> {
    return this.send(jsonOf('device.send', value), { ...JSON_CONTENT, ...options });
  }

  /**
   * Takes many in, in order, with one commit: all or none. An abort stops the waiting; the messages are in the outbox all the
   * same, or none of them is.
   *
   * @throws {@link WhimbrelError} As {@link DeviceClient.send}; `details.index` says which message.
   */
  async sendMany(messages: Iterable<Uint8Array | Message>, options?: Cancel): Promise<Receipts> {
    const operation = 'device.send_all';
    const bodies: Uint8Array[] = [];
    const drafts: (object | null)[] = [];
    const ids = new Map<number, string>();
    let plain = true;
    for (const message of messages) {
      if (types.isUint8Array(message)) {
        bodies.push(bodyOf(operation, message));
        drafts.push(null);
        continue;
      }
      if (message === null || typeof message !== 'object') throw invalid(operation, 'a message is a Uint8Array or an object');
      const { body, ...said } = message;
      const document = documentOf(operation, said);
      if (typeof said.messageId === 'string') ids.set(bodies.length, said.messageId);
      bodies.push(bodyOf(operation, body));
      drafts.push(document);
      plain &&= document === null;
    }
    const json = plain ? undefined : JSON.stringify({ messages: drafts });
    const begin = (token: number) => this.#native.sendMany(token, bodies, json);
    return call(this, options, begin, (value) => Receipts.of(this.#issuer, value as [Float64Array, string], ids), true);
  }

  /**
   * The receipt of a message by its id, also after a restart; null when it is not known, or not any more.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_JOURNAL_IO`, `WHIMBREL_CLOSED`.
   */
  async receipt(messageId: string, options?: Cancel): Promise<Receipt | null> {
    const text = textOf('device.receipt', 'message id', messageId);
    return call(this, options, (token) => this.#native.receipt(token, text), (value) => {
      if (value === undefined) return null;
      if (typeof value === 'string') return Receipt.ended(this.#issuer, JSON.parse(value) as Ended);
      const [place, sequence] = value as [number, number];
      return Receipt.queued(this.#issuer, place, sequence, text);
    });
  }

  /**
   * The commands for this device; always the same object. The first call has the hub send them, on this connection and each
   * later one.
   */
  inbox(): Inbox {
    return (this.#inbox ??= Inbox.of(this, attempt(() => this.#native.inbox())));
  }

  /** What the link is doing. */
  get connection(): ConnectionState {
    return JSON.parse(attempt(() => this.#native.connection())) as ConnectionState;
  }

  /** What the link is doing, now and whenever it changes, until the client is closed. States that pass quickly may be left out. */
  async *connectionChanges(options?: Cancel): AsyncIterableIterator<ConnectionState> {
    const changes = attempt(() => this.#native.connectionChanges());
    for (let state; (state = await pull(this, changes, options)) !== null; ) yield JSON.parse(state) as ConnectionState;
  }

  /** The account of the outbox. */
  account(): Account {
    return JSON.parse(attempt(() => this.#native.account())) as Account;
  }

  /** Figures. They may need a look at the disk, so they come later. */
  async counters(options?: Cancel): Promise<Counters> {
    return call(this, options, (token) => this.#native.counters(token), (text) => countersOf(text as string));
  }

  /**
   * Waits until everything is settled or `deadlineMs` milliseconds have passed; resolves with how many messages are still
   * queued. Never fails for a slow network. An abort changes nothing.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_CLOSED`, `WHIMBREL_INVALID_ARGUMENT`.
   */
  async flush(deadlineMs: number | bigint, options?: Cancel): Promise<number> {
    if (typeof deadlineMs !== 'number' && typeof deadlineMs !== 'bigint') {
      throw invalid('device.flush', 'the deadline is not a number of milliseconds');
    }
    return call(this, options, (token) => this.#native.flush(token, deadlineMs), (left) => left as number);
  }

  /**
   * Takes no more messages and hands out no more commands, flushes for as long as `closeDeadlineMs` says, disconnects, closes the
   * outbox. What is left stays there for the next time; commands that are not settled stay with the hub. Closing twice is fine.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_JOURNAL_IO`, `WHIMBREL_DISK_FULL`; told once. It is closed all the same.
   */
  async close(): Promise<void> {
    this.#lease.closing();
    try {
      await call(this, undefined, (token) => this.#native.close(token), nothing);
    } finally {
      this.#lease.closed();
    }
  }

  /** {@link DeviceClient.close}, for `await using`. */
  declare [Symbol.asyncDispose]: () => Promise<void>;
}

disposable(DeviceClient);

/** Keeps the client while there are receipts of it. */
class DeviceIssuer implements Issuer {
  constructor(
    readonly client: DeviceClient,
    readonly native: Device,
  ) {}
}

/** Somebody who waits until his message is safe. */
class Sending implements Waiter {
  #unwatch: (() => void) | undefined;

  constructor(
    readonly issuer: Issuer,
    readonly id: string | undefined,
    readonly resolve: (receipt: Receipt) => void,
    readonly reject: (reason: unknown) => void,
  ) {}

  stopWith(token: number, signal: AbortSignal): void {
    this.#unwatch = watch(signal, () => {
      // The message is on its way to the disk: the process ends only when it is there.
      forget(token);
      wait(token, NOBODY);
      this.reject(signal.reason);
    });
  }

  pair(place: number, sequence: number): void {
    this.#unwatch?.();
    this.resolve(Receipt.queued(this.issuer, place, sequence, this.id));
  }

  value(value: unknown): void {
    this.#unwatch?.();
    this.resolve(Receipt.ended(this.issuer, JSON.parse(value as string) as Ended));
  }

  fail(reason: unknown): void {
    this.#unwatch?.();
    this.reject(reason);
  }
}

function countersOf(text: string): Counters {
  const all = JSON.parse(text) as Record<string, unknown>;
  const camelCase = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(all).map(([name, value]) => [camelCase(name), value])) as unknown as Counters;
}
