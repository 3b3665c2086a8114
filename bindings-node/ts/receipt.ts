import type { Device } from '../native.js';
import { attempt, call, type Cancel } from './calls.js';

/** How a message ended. */
export type Outcome =
  | {
      /** Durable at the hub. */
      kind: 'delivered';
      /** Partition of the event log, where the hub told it. */
      partition: number | null;
      /** Its number in the partition, where the hub told it. */
      sequence: bigint | null;
    }
  | {
      /** Its time to live ended first. */
      kind: 'expired';
    }
  | {
      /** Given up by this side. */
      kind: 'dropped';
      /** Why: to make room for a newer one, for want of room, or because its record on the disk was damaged. */
      reason: DropReason;
    }
  | {
      /** Refused by the hub for good. */
      kind: 'rejected';
      /** What the hub said. */
      reason: string;
    };

/** Why this side gave a message up. */
export type DropReason = 'made-room' | 'no-room' | 'damaged';

/** Where a message is: waiting, on its way, ended, or ended so long ago that its outcome is no longer kept. */
export type ReceiptState = { state: 'queued' | 'sent' | 'unknown' } | { state: 'settled'; outcome: Outcome };

/** @internal What a receipt needs of its client. */
export interface Issuer {
  readonly native: Device;
}

/** What `send` resolves with: the message is safe, and this is how to follow it. */
export class Receipt {
  readonly #issuer: Issuer;
  readonly #place: number;
  readonly #sequence: number;
  #id: string | undefined;
  readonly #ended: Outcome | undefined;

  private constructor(issuer: Issuer, place: number, sequence: number, id: string | undefined, ended: Outcome | undefined) {
    this.#issuer = issuer;
    this.#place = place;
    this.#sequence = sequence;
    this.#id = id;
    this.#ended = ended;
  }

  /** @internal */
  static queued(issuer: Issuer, place: number, sequence: number, id: string | undefined): Receipt {
    return new Receipt(issuer, place, sequence, id, undefined);
  }

  /** @internal One of a message that has ended already. */
  static ended(issuer: Issuer, { id, outcome }: Ended): Receipt {
    return new Receipt(issuer, 0, 0, id, outcomeOf(outcome));
  }

  /** The id to find this receipt again with, also after a restart. */
  get messageId(): string {
    return (this.#id ??= attempt(() => this.#issuer.native.messageId(this.#place, this.#sequence)));
  }

  /** Where the message is now. */
  state(): ReceiptState {
    if (this.#ended) return { state: 'settled', outcome: this.#ended };
    const text = attempt(() => this.#issuer.native.state(this.#place, this.#sequence));
    const { state, ...rest } = JSON.parse(text) as Document & { state: 'queued' | 'sent' | 'unknown' | 'settled' };
    return state === 'settled' ? { state, outcome: outcomeOf(rest) } : { state };
  }

  /**
   * Waits for the end; any number of times. An abort changes nothing for the message.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_CLOSED` when the client is closed first; ask again by the id after opening.
   * `WHIMBREL_NOT_FOUND` when the outcome is no longer kept.
   */
  async outcome(options?: Cancel): Promise<Outcome> {
    if (this.#ended) {
      options?.signal?.throwIfAborted();
      return this.#ended;
    }
    const begin = (token: number) => this.#issuer.native.outcome(token, this.#place, this.#sequence);
    return call(this, options, begin, (value) => {
      if (typeof value === 'string') return outcomeOf(JSON.parse(value) as Document);
      const [partition, sequence] = value as [number, number];
      return {
        kind: 'delivered',
        partition: partition < 0 ? null : partition,
        sequence: sequence < 0 ? null : BigInt(sequence),
      };
    });
  }
}

/** The receipts of `sendMany`, in the order of the messages. Each is made when it is asked for. */
export class Receipts implements Iterable<Receipt> {
  readonly #issuer: Issuer;
  readonly #keys: Float64Array;
  readonly #ended: ReadonlyMap<number, Ended>;
  readonly #ids: ReadonlyMap<number, string>;

  private constructor(issuer: Issuer, keys: Float64Array, ended: ReadonlyMap<number, Ended>, ids: ReadonlyMap<number, string>) {
    this.#issuer = issuer;
    this.#keys = keys;
    this.#ended = ended;
    this.#ids = ids;
  }

  /** @internal */
  static of(issuer: Issuer, [keys, ended]: [Float64Array, string], ids: ReadonlyMap<number, string>): Receipts {
    return new Receipts(issuer, keys, new Map(JSON.parse(ended) as [number, Ended][]), ids);
  }

  /** How many there are. */
  get length(): number {
    return this.#keys.length / 2;
  }

  /** The receipt of one message; a negative index counts from the end. */
  at(index: number): Receipt | undefined {
    const at = Math.trunc(index) || 0;
    const place = at < 0 ? at + this.length : at;
    if (place < 0 || place >= this.length) return undefined;
    const ended = this.#ended.get(place);
    if (ended) return Receipt.ended(this.#issuer, ended);
    return Receipt.queued(this.#issuer, this.#keys[place * 2]!, this.#keys[place * 2 + 1]!, this.#ids.get(place));
  }

  /** All of them. */
  *[Symbol.iterator](): IterableIterator<Receipt> {
    for (let index = 0; index < this.length; index += 1) yield this.at(index)!;
  }
}

/** @internal An outcome as the native half writes it. */
export interface Document {
  outcome?: string;
  partition?: number | null;
  sequence?: string | null;
  reason?: string;
}

/** @internal A receipt whose message has ended, as the native half writes it. */
export interface Ended {
  id: string;
  outcome: Document;
}

function outcomeOf({ outcome, partition = null, sequence = null, reason = '' }: Document): Outcome {
  switch (outcome) {
    case 'delivered':
      return { kind: outcome, partition, sequence: sequence === null ? null : BigInt(sequence) };
    case 'dropped':
      return { kind: outcome, reason: reason as DropReason };
    case 'rejected':
      return { kind: outcome, reason };
    default:
      return { kind: outcome as 'expired' };
  }
}
