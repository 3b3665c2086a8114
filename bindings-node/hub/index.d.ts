/** Where a hub listens. */
export type Listener = 'mqtt' | 'mqtts' | 'amqp' | 'amqps' | 'http' | 'https';

export interface LocalHubOptions {
  /** Where its data is kept. Default: a temporary folder that goes when the hub is closed. */
  folder?: string | undefined;
  /** Settings of the hub by their names in `hub.toml` (`whimbrel hub --print-config` prints them): `{ 'command-lock': '1s' }`. */
  settings?: Readonly<Record<string, string | number | boolean>> | undefined;
  /** The `whimbrel` command. Default: what `findProgram` finds. */
  program?: string | undefined;
  /** How long a start may take, milliseconds. Default 60,000. */
  startTimeoutMs?: number | undefined;
}

/**
 * A hub on free ports of this machine, for tests: the `whimbrel` command as a process of its own.
 *
 * It ends with the process that started it, also when that is killed, and does not keep that process from ending.
 */
export class LocalHub {
  private constructor();

  /**
   * Starts a hub and resolves when it listens, after 0.1 s or so.
   *
   * Rejects when there is no `whimbrel` command, when the hub ends instead of listening (with what it printed), and after
   * `startTimeoutMs`.
   */
  static start(options?: LocalHubOptions): Promise<LocalHub>;

  /** Whether the process runs. */
  readonly running: boolean;
  /** Id of the process, when it runs. */
  readonly pid: number | undefined;
  /** Where the data is. What is in it is the hub's. */
  readonly folder: string;
  /** The end of what the hub printed; the variable WHIMBREL_LOG says how much that is, such as `debug`. */
  readonly log: string;
  /** File of the certificate to trust, for the listeners with TLS. */
  readonly caFile: string;
  /** Connection string of the policy that may do everything. */
  readonly serviceConnectionString: string;

  /** Where it listens, such as `127.0.0.1:41234`. */
  address(listener: Listener): string;
  /** Options of `DeviceClient.open` that lead to this hub: by MQTT without TLS, or by another listener. */
  deviceOptions(listener?: Listener): { server: string; caFile?: string };
  /** Options of `ServiceClient.connect` that lead to this hub, without TLS. */
  serviceOptions(): { server: string; httpServer: string };

  /**
   * Creates a device with keys made by the hub; resolves with its connection string.
   *
   * Rejects with what the hub says when it refuses (the device is there already, the id is no good), and when it does not run.
   */
  createDevice(deviceId: string): Promise<string>;

  /**
   * Stops the hub as an operator would, and resolves when it has ended; nothing when it does not run. Connections may finish what they
   * began (setting `stop-timeout`). Rejects when the hub ended with an error.
   */
  stop(): Promise<void>;
  /** Ends the hub with no warning, as a power cut would (SIGKILL). What it acknowledged it has. */
  kill(): Promise<void>;
  /** Starts the hub again with the same ports and data; stops it first when it runs. */
  restart(): Promise<void>;
  /** Stops the hub for good, and deletes its data if the folder is a temporary one. */
  close(): Promise<void>;
  /** As `close`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * The `whimbrel` command: the variable WHIMBREL_BINARY, else the package for this platform, else in PATH. Throws an error that says how
 * to get it.
 */
export function findProgram(): string;
