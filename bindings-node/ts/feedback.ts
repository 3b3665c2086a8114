import type { Batch, Feedback as NativeFeedback } from '../native.js';
import { call, type Cancel, nothing, pull } from './calls.js';
import { disposable } from './dispose.js';
import { dateOf } from './inbox.js';
import type { CommandOutcome } from './tracked.js';

/** The hub's record of how a command ended. */
export interface Feedback {
  /** The message id of the command. */
  readonly messageId: string;
  /** The device it was for. */
  readonly deviceId: string;
  /** The generation of that device: another one is another device of the same name. */
  readonly generation: string;
  /** How it ended; null for a word that is not in the contract. */
  readonly outcome: CommandOutcome | null;
  /** When it ended, by the hub's clock. */
  readonly endedAt: Date | null;
}

/** Some records, locked for this reader. To be settled before the lock ends, 60 s on a hub with default settings. */
export class FeedbackBatch {
  readonly #native: Batch;
  /** The records, oldest first. */
  readonly records: readonly Feedback[];
  /** When the newest record was made, by the hub's clock. */
  readonly enqueuedAt: Date | null;

  private constructor([native, text]: [Batch, string]) {
    const { records, enqueued_at_ms } = JSON.parse(text) as BatchDocument;
    this.#native = native;
    this.records = records.map(({ message_id, device_id, generation, outcome, ended_at_ms }) => {
      return { messageId: message_id, deviceId: device_id, generation, outcome, endedAt: dateOf(ended_at_ms) };
    });
    this.enqueuedAt = dateOf(enqueued_at_ms);
  }

  /** @internal */
  static of(taken: [Batch, string]): FeedbackBatch {
    return new FeedbackBatch(taken);
  }

  /**
   * Removes the records from the queue. When the connection is lost just then they may come once more. An abort stops the
   * waiting, not the settling.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_LOCK_LOST` when the connection it came on has ended; `WHIMBREL_CONFLICT` when it was
   * settled before.
   */
  async complete(options?: Cancel): Promise<void> {
    return call(this, options, (token) => this.#native.complete(token), nothing, true);
  }

  /**
   * Gives the records back; the hub delivers them again, a limited number of times. An abort stops the waiting, not the settling.
   *
   * @throws {@link WhimbrelError} As {@link FeedbackBatch.complete}.
   */
  async abandon(options?: Cancel): Promise<void> {
    return call(this, options, (token) => this.#native.abandon(token), nothing, true);
  }
}

/**
 * Takes feedback from the hub's queue: `for await (const batch of service.feedback())`. Reconnects by itself. The queue is one
 * for the hub: of several readers, in whatever process, each gets a part of it. To be closed when it is not needed any more.
 */
export class FeedbackReader implements AsyncIterable<FeedbackBatch>, AsyncDisposable {
  readonly #native: NativeFeedback;

  private constructor(native: NativeFeedback) {
    this.#native = native;
  }

  /** @internal */
  static of(native: NativeFeedback): FeedbackReader {
    return new FeedbackReader(native);
  }

  /**
   * The next batch; waits for it. Null after the reader or its client was closed. An abort loses nothing.
   *
   * @throws {@link WhimbrelError} What will not pass by itself, such as `WHIMBREL_UNAUTHORIZED`; the reader goes on trying.
   */
  async next(options?: Cancel): Promise<FeedbackBatch | null> {
    const taken = await pull(this, this.#native, options);
    return taken && FeedbackBatch.of(taken);
  }

  /** Stops reading. Batches that were not settled go back to the queue. Closing twice is fine. */
  async close(): Promise<void> {
    return call(this, undefined, (token) => this.#native.close(token), nothing);
  }

  async *[Symbol.asyncIterator](): AsyncIterableIterator<FeedbackBatch> {
    for (let batch; (batch = await this.next()) !== null; ) yield batch;
  }

  /** {@link FeedbackReader.close}, for `await using`. */
  declare [Symbol.asyncDispose]: () => Promise<void>;
}

disposable(FeedbackReader);

interface BatchDocument {
  records: {
    message_id: string;
    device_id: string;
    generation: string;
    outcome: CommandOutcome | null;
    ended_at_ms: number | null;
  }[];
  enqueued_at_ms: number | null;
}
