import { type Cancel } from './calls.js';
/** How a command ended. */
export type CommandOutcome = 'completed' | 'rejected' | 'expired' | 'delivery-count-exceeded' | 'purged';
/** A command the hub has taken in, or one that was sent before. Losing it changes nothing for the command. */
export declare class Tracked {
    #private;
    /** The device it is for. */
    readonly deviceId: string;
    /** Its message id. With it {@link ServiceClient.tracked} follows it again after a restart. */
    readonly messageId: string;
    private constructor();
    /**
     * Waits until the command has ended; any number of times, over lost connections. An abort changes nothing for the command.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_NOT_FOUND` when the hub knows of no such command, or not any more;
     * `WHIMBREL_CLOSED` when the client is closed.
     */
    outcome(options?: Cancel): Promise<CommandOutcome>;
}
