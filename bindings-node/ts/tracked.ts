import type { Tracked as NativeTracked } from '../native.js';
import { call, type Cancel } from './calls.js';

/** How a command ended. */
export type CommandOutcome = 'completed' | 'rejected' | 'expired' | 'delivery-count-exceeded' | 'purged';

/** A command the hub has taken in, or one that was sent before. Losing it changes nothing for the command. */
export class Tracked {
  readonly #native: NativeTracked;
  /** The device it is for. */
  readonly deviceId: string;
  /** Its message id. With it {@link ServiceClient.tracked} follows it again after a restart. */
  readonly messageId: string;

  private constructor(native: NativeTracked) {
    this.#native = native;
    this.deviceId = native.deviceId;
    this.messageId = native.messageId;
  }

  /** @internal */
  static of(native: NativeTracked): Tracked {
    return new Tracked(native);
  }

  /**
   * Waits until the command has ended; any number of times, over lost connections. An abort changes nothing for the command.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_NOT_FOUND` when the hub knows of no such command, or not any more;
   * `WHIMBREL_CLOSED` when the client is closed.
   */
  async outcome(options?: Cancel): Promise<CommandOutcome> {
    return call(this, options, (token) => this.#native.outcome(token), (outcome) => outcome as CommandOutcome);
  }
}
