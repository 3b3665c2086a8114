import type { Events, Service, Tracked as NativeTracked } from '../native.js';
import { attempt, call, type Cancel, environment, Lease, nothing } from './calls.js';
import { disposable } from './dispose.js';
import { invalid } from './errors.js';
import { Checkpoints, EventReader, eventsJson, type EventsOptions } from './events.js';
import { FeedbackReader } from './feedback.js';
import { bodyOf, documentOf, JSON_CONTENT, jsonOf } from './message.js';
import { textOf, toJson } from './options.js';
import { Registry } from './registry.js';
import { Tracked } from './tracked.js';

/** Options of {@link ServiceClient.connect}. Times are whole milliseconds. What is not given has its default in the core. */
export interface ServiceOptions {
  /** Connection string of the event log, where it is not that of the hub. */
  eventsConnectionString?: string | undefined;
  /** Address for commands, feedback and events, such as `amqps://hub.example:5671`. */
  server?: string | undefined;
  /** Address for the registry, such as `https://hub.example`. */
  httpServer?: string | undefined;
  /** Speaks through WebSockets, on port 443 unless the server says otherwise. */
  websocket?: boolean | undefined;
  /** Address of an HTTP proxy to connect through. */
  proxy?: string | undefined;
  /** File with the certificates of authorities to trust instead of the usual ones. */
  caFile?: string | undefined;
  /** The same as text. */
  caPem?: string | undefined;
  /** Allows connections without TLS to other machines. */
  allowUnencrypted?: boolean | undefined;
  /** How long connecting may take. */
  connectTimeoutMs?: number | bigint | undefined;
  /** How long sending a command may take. */
  sendTimeoutMs?: number | bigint | undefined;
  /** Shortest wait before connecting again; with `backoffMaxMs`. */
  backoffMinMs?: number | bigint | undefined;
  /** Longest wait before connecting again. */
  backoffMaxMs?: number | bigint | undefined;
  /** How long a token is valid. */
  tokenLifetimeMs?: number | bigint | undefined;
  /** How many outcomes are kept for those who ask later. */
  recentOutcomes?: number | bigint | undefined;
}

/** Which feedback the hub is to keep for {@link ServiceClient.feedback}. */
export type FeedbackWanted = 'none' | 'positive' | 'negative' | 'full';

/** What may be said about a command besides its body. */
export interface CommandOptions {
  /** Time to live in the device's queue, in milliseconds. Default: the hub's. */
  expiresInMs?: number | bigint | undefined;
  /** Default `none`. {@link Tracked} needs none. */
  feedback?: FeedbackWanted | undefined;
  /** Application properties. */
  properties?: Readonly<Record<string, string>> | undefined;
  /** Default: a random one. */
  messageId?: string | undefined;
  /** Joins this command to another message. */
  correlationId?: string | undefined;
  /** Who caused it. */
  userId?: string | undefined;
  /** The content type of the body. */
  contentType?: string | undefined;
  /** The character set of the body. */
  contentEncoding?: string | undefined;
}

/**
 * A back end's connection to its hub. It connects when something needs a connection, and again when one is lost. While a client
 * is open the process does not end by itself; {@link ServiceClient.close} lets it.
 */
export class ServiceClient implements AsyncDisposable {
  readonly #native: Service;
  readonly #lease: Lease;
  /** Creates, changes and deletes device and module identities. */
  readonly registry: Registry;

  private constructor(native: Service) {
    this.#native = native;
    this.#lease = new Lease(this, 'ServiceClient');
    this.registry = Registry.of(this, native);
  }

  /**
   * Checks the options and reads the files they name. Connecting happens when it is needed.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` naming the option.
   */
  static async connect(connectionString: string, options?: ServiceOptions & Cancel): Promise<ServiceClient> {
    const text = textOf('service.connect', 'connection string', connectionString);
    const json = toJson('service.connect', options);
    return call(ServiceClient, options, (token) => environment.connect(token, text, json), (service) => {
      return new ServiceClient(service as Service);
    });
  }

  /**
   * Sends a command to a device; resolves when the hub has stored it in the device's queue. Any number may be sent at the same
   * time. At least once: when the connection is lost before the hub's answer, it is sent again with the same id. After an abort
   * the hub may have it.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT`, `WHIMBREL_PAYLOAD_TOO_LARGE`; `WHIMBREL_NOT_FOUND`: no such
   * device, or it is disabled; `WHIMBREL_QUEUE_FULL`, `WHIMBREL_THROTTLED`: later; `WHIMBREL_UNAUTHORIZED`; `WHIMBREL_TIMEOUT`:
   * the hub may have it; `WHIMBREL_CLOSED`.
   */
  async send(deviceId: string, body: Uint8Array, options?: CommandOptions & Cancel): Promise<Tracked> {
    const operation = 'service.send';
    const { signal, expiresInMs, feedback, ...said } = options ?? {};
    const device = textOf(operation, 'device id', deviceId);
    const bytes = bodyOf(operation, body);
    const draft = JSON.stringify(documentOf(operation, said) ?? {});
    const how = toJson(operation, { expiresInMs, feedback });
    const begin = (token: number) => this.#native.send(token, device, bytes, draft, how);
    return call(this, { signal }, begin, (tracked) => Tracked.of(tracked as NativeTracked));
  }

  /**
   * {@link ServiceClient.send} with a value as JSON; content type and encoding say so unless given.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` for what is no JSON.
   */
  async sendJson(deviceId: string, value: unknown, options?: CommandOptions & Cancel): Promise<Tracked> {
    return this.send(deviceId, jsonOf('service.send', value), { ...JSON_CONTENT, ...options });
  }

  /**
   * Follows a command that was sent before, also by another process, by its message id.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT` for a device id that cannot be one; `WHIMBREL_CLOSED`.
   */
  tracked(deviceId: string, messageId: string): Tracked {
    const device = textOf('service.tracked', 'device id', deviceId);
    const id = textOf('service.tracked', 'message id', messageId);
    return Tracked.of(attempt(() => this.#native.tracked(device, id)));
  }

  /**
   * Reads the feedback the hub keeps for commands that asked for it.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_CLOSED`.
   */
  feedback(): FeedbackReader {
    return FeedbackReader.of(attempt(() => this.#native.feedback()));
  }

  /**
   * Begins to read events. With checkpoints, and unless partitions are chosen, all readers of a consumer group share the
   * partitions; when one changes hands, the events since the last checkpoint come again. When this resolves, the position `end` is
   * fixed: events stored from now on are seen. An abort leaves nothing behind.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_INVALID_ARGUMENT`, `WHIMBREL_NOT_FOUND` for a partition there is not,
   * `WHIMBREL_UNAUTHORIZED`, `WHIMBREL_UNREACHABLE`, `WHIMBREL_PROTOCOL`, `WHIMBREL_CLOSED`, and what the checkpoint store says.
   */
  async events(options?: EventsOptions & Cancel): Promise<EventReader> {
    const { checkpoints } = options ?? {};
    if (checkpoints !== undefined && checkpoints !== null && !(checkpoints instanceof Checkpoints)) {
      throw invalid('service.events', 'checkpoints are FileCheckpoints, HubCheckpoints or MemoryCheckpoints');
    }
    const json = eventsJson(options ?? {});
    const store = checkpoints && Checkpoints.native(checkpoints);
    const begin = (token: number) => this.#native.events(token, json, store);
    return call(this, options, begin, (events) => EventReader.of(events as Events));
  }

  /**
   * Closes the client: what waits ends with `WHIMBREL_CLOSED`, readers give up their partitions and end. Closing twice is fine.
   */
  async close(): Promise<void> {
    this.#lease.closing();
    try {
      await call(this, undefined, (token) => this.#native.close(token), nothing);
    } finally {
      this.#lease.closed();
    }
  }

  /** {@link ServiceClient.close}, for `await using`. */
  declare [Symbol.asyncDispose]: () => Promise<void>;
}

disposable(ServiceClient);
