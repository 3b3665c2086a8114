import { attempt, environment, onLog } from './calls.js';

/** How serious a line of the log is. */
export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace';

/** A line of the log. It holds no payload, key or token. */
export interface LogRecord {
  readonly level: LogLevel;
  /** Where in the code: `whimbrel.device`, and so on. */
  readonly target: string;
  /** What happened, with its fields. */
  readonly message: string;
}

/**
 * Sends the log to `take`, from now on, down to `level` (default `info`); with null, to nobody, as it is in the beginning. There
 * is one log for the process: the thread that called this last gets it. An exception in `take` becomes a process warning.
 *
 * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` for another level.
 */
export function setLog(take: ((record: LogRecord) => void) | null, options?: { level?: LogLevel | undefined }): void {
  if (take === null) {
    attempt(() => environment.setLog(null));
    onLog(undefined);
    return;
  }
  attempt(() => environment.setLog(options?.level ?? 'info'));
  onLog((line) => {
    const { lost, ...record } = JSON.parse(line) as LogRecord & { lost: number };
    try {
      if (lost > 0) take({ level: 'warn', target: 'whimbrel.log', message: `${lost} lines were lost: too many at a time` });
      take(record);
    } catch (thrown) {
      process.emitWarning(`The function given to setLog failed: ${String(thrown)}`, {
        type: 'WhimbrelWarning',
        code: 'WHIMBREL_LOG',
      });
    }
  });
}
