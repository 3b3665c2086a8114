import type { Command as NativeCommand, Commands } from '../native.js';
import { call, type Cancel, nothing, pull } from './calls.js';

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

/** @internal A head as the native half writes it. */
export interface HeadDocument extends Omit<Head, 'creationTime'> {
  creationTime: number | null;
  messageSchema: string | null;
  outputName: string | null;
  interfaceId: string | null;
  component: string | null;
}

/** @internal */
export function dateOf(ms: number | null): Date | null {
  return ms === null ? null : new Date(ms);
}

/** @internal */
export function numberOf(text: string | null): bigint | null {
  return text === null ? null : BigInt(text);
}

/**
 * A command, locked for this device until it is settled. It may be settled later than the call that received it, and in any
 * order. Unsettled it stays locked until the hub takes the lock back, and is delivered again then.
 */
export class Command implements Head {
  readonly #native: NativeCommand;
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

  private constructor([native, body, head]: [NativeCommand, Uint8Array, string]) {
    const document = JSON.parse(head) as CommandDocument;
    this.#native = native;
    this.body = body;
    this.properties = document.properties;
    this.messageId = document.messageId;
    this.correlationId = document.correlationId;
    this.userId = document.userId;
    this.contentType = document.contentType;
    this.contentEncoding = document.contentEncoding;
    this.creationTime = dateOf(document.creationTime);
    this.sequence = numberOf(document.sequence);
    this.enqueuedAt = dateOf(document.enqueuedAt);
    this.deliveryCount = document.deliveryCount;
  }

  /** @internal */
  static of(taken: [NativeCommand, Uint8Array, string]): Command {
    return new Command(taken);
  }

  /**
   * It was dealt with: the hub removes it, and it is never handed out again. Resolves when that is recorded on this device, and
   * handed to the connection or answered by the hub, whichever the protocol has. An abort stops the waiting, not the settling.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when it was settled before, `WHIMBREL_LOCK_LOST` when the hub did not hold
   * it any more, `WHIMBREL_DISK_FULL` or `WHIMBREL_JOURNAL_IO` when it could not be recorded, `WHIMBREL_CLOSED`.
   */
  async complete(options?: Cancel): Promise<void> {
    return call(this, options, (token) => this.#native.complete(token), nothing, true);
  }

  /**
   * Not now: the hub delivers it again, a limited number of times. An abort stops the waiting, not the settling.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_UNSUPPORTED` on MQTT 3.1.1: it stays locked, and can still be completed. Otherwise as
   * {@link Command.complete}.
   */
  async abandon(options?: Cancel): Promise<void> {
    return call(this, options, (token) => this.#native.abandon(token), nothing, true);
  }

  /**
   * Never: the hub dead-letters it, and it is never handed out again. An abort stops the waiting, not the settling.
   *
   * @throws {@link WhimbrelError} As {@link Command.abandon}.
   */
  async reject(options?: Cancel): Promise<void> {
    return call(this, options, (token) => this.#native.reject(token), nothing, true);
  }
}

/**
 * The commands of a device: `for await (const command of device.inbox())`. The iteration ends when the client is closed; leaving
 * it closes nothing. Of several who wait, each command goes to one.
 */
export class Inbox implements AsyncIterable<Command> {
  readonly #native: Commands;
  /** Kept while its inbox is in use. */
  readonly #device: object;

  private constructor(device: object, native: Commands) {
    this.#device = device;
    this.#native = native;
  }

  /** @internal */
  static of(device: object, native: Commands): Inbox {
    return new Inbox(device, native);
  }

  /**
   * The next command, in the order of their arrival; waits for one. Null once the client is closed. A command is locked for this
   * device from the moment it is delivered, 60 s on a hub with default settings. An abort swallows none.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_UNSUPPORTED` for a module, which has no commands; what the hub said when it refused
   * to send commands; `WHIMBREL_JOURNAL_IO` when the outbox failed.
   */
  async next(options?: Cancel): Promise<Command | null> {
    const taken = await pull(this.#device, this.#native, options);
    return taken && Command.of(taken);
  }

  async *[Symbol.asyncIterator](): AsyncIterableIterator<Command> {
    for (let command; (command = await this.next()) !== null; ) yield command;
  }
}

interface CommandDocument extends HeadDocument {
  sequence: string | null;
  enqueuedAt: number | null;
  deliveryCount: number | null;
}
