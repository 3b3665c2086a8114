import type { Service } from '../native.js';
import { attempt, call, type Cancel } from './calls.js';
import { textOf, toJson } from './options.js';

/** How a device or module proves itself. */
export type Authentication =
  | {
      type: 'sas';
      /** Base64. Left out at creation, the hub makes them. */
      symmetricKey?: { primaryKey: string | null; secondaryKey: string | null };
    }
  | { type: 'selfSigned'; x509Thumbprint: { primaryThumbprint: string | null; secondaryThumbprint: string | null } }
  | { type: 'certificateAuthority' }
  | { type: 'none' };

/** What devices and modules have in common. */
export interface Identity {
  /** How it proves itself. Default `sas` with keys that the hub makes. */
  authentication?: Authentication;
  /** Changes with each change; an update needs the current one. */
  etag?: string;
  /** Set by the hub: another one is another identity of the same name. */
  generationId?: string;
  /** What else the hub says. */
  [name: string]: unknown;
}

/** A device, as the contract's JSON document. */
export interface DeviceIdentity extends Identity {
  /** 1 to 128 ASCII letters, digits and `-:.+%_#*?!(),=@;$'`. */
  deviceId: string;
  /** A device that is disabled cannot connect. Default `enabled`. */
  status?: 'enabled' | 'disabled';
  /** Why it is disabled. */
  statusReason?: string | null;
  /** Set by the hub. */
  connectionState?: 'Connected' | 'Disconnected';
  /** Set by the hub: commands in its queue. */
  cloudToDeviceMessageCount?: number;
}

/** A module of a device, as the contract's JSON document. */
export interface ModuleIdentity extends Identity {
  /** The device it belongs to. */
  deviceId: string;
  /** Its own id. */
  moduleId: string;
  /** Who manages it. */
  managedBy?: string | null;
}

/** Only while this is the current etag. */
export interface Condition extends Cancel {
  etag?: string | undefined;
}

/**
 * Creates, changes and deletes identities. Every call may fail with `WHIMBREL_UNAUTHORIZED`, `WHIMBREL_THROTTLED`,
 * `WHIMBREL_UNREACHABLE`, `WHIMBREL_INVALID_ARGUMENT` or `WHIMBREL_NOT_FOUND`. An abort stops the waiting; the hub may have done
 * what it was asked to.
 */
export class Registry {
  readonly #native: Service;
  /** Kept while its registry is in use. */
  readonly #client: object;

  private constructor(client: object, native: Service) {
    this.#client = client;
    this.#native = native;
  }

  /** @internal */
  static of(client: object, native: Service): Registry {
    return new Registry(client, native);
  }

  /**
   * Creates a device: by its id, with keys the hub makes, or as the identity says.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when it exists.
   */
  async create(device: string | DeviceIdentity, options?: Cancel): Promise<DeviceIdentity> {
    return this.#ask('create', { device }, options);
  }

  /** A device. */
  async get(deviceId: string, options?: Cancel): Promise<DeviceIdentity> {
    return this.#ask('get', { device: idOf('device', deviceId) }, options);
  }

  /**
   * Changes a device to what the identity says, if its etag is still the current one.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when it is not.
   */
  async update(device: DeviceIdentity, options?: Cancel): Promise<DeviceIdentity> {
    return this.#ask('update', { device }, options);
  }

  /**
   * Deletes a device with its commands and modules; its events stay.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when the etag is not the current one.
   */
  async delete(deviceId: string, options?: Condition): Promise<void> {
    await this.#ask('delete', { device: idOf('device', deviceId), etag: options?.etag }, options);
  }

  /** Up to `limit` devices (1 to 1000; without it as many as the hub gives), in no particular order. For more, `query`. */
  async list(options?: Cancel & { limit?: number | undefined }): Promise<DeviceIdentity[]> {
    return this.#ask('list', { limit: options?.limit }, options);
  }

  /** What a query finds, such as `SELECT * FROM devices`, a page at a time behind the scenes. */
  async *query(query: string, options?: Cancel & { pageSize?: number | undefined }): AsyncIterableIterator<object> {
    let continuation: string | null = null;
    do {
      const request = { query: textOf('registry.query', 'query', query), pageSize: options?.pageSize, continuation };
      const page: Page = await this.#ask('query', request, options);
      yield* page.items;
      continuation = page.continuation;
    } while (continuation !== null);
  }

  /**
   * Creates a module of a device, with keys the hub makes unless the identity says otherwise.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when it exists.
   */
  async createModule(module: ModuleIdentity, options?: Cancel): Promise<ModuleIdentity> {
    return this.#ask('createModule', { module }, options);
  }

  /** A module. */
  async getModule(deviceId: string, moduleId: string, options?: Cancel): Promise<ModuleIdentity> {
    return this.#ask('getModule', { device: idOf('device', deviceId), module: idOf('module', moduleId) }, options);
  }

  /** Changes a module, if its etag is still the current one. */
  async updateModule(module: ModuleIdentity, options?: Cancel): Promise<ModuleIdentity> {
    return this.#ask('updateModule', { module }, options);
  }

  /** Deletes a module. */
  async deleteModule(deviceId: string, moduleId: string, options?: Condition): Promise<void> {
    const ids = { device: idOf('device', deviceId), module: idOf('module', moduleId) };
    await this.#ask('deleteModule', { ...ids, etag: options?.etag }, options);
  }

  /** The modules of a device. */
  async modules(deviceId: string, options?: Cancel): Promise<ModuleIdentity[]> {
    return this.#ask('modules', { device: idOf('device', deviceId) }, options);
  }

  /** Ends all commands in the queue of a device as purged; how many. */
  async purgeCommands(deviceId: string, options?: Cancel): Promise<number> {
    return this.#ask('purgeCommands', { device: idOf('device', deviceId) }, options);
  }

  /**
   * The connection string of a device or module: with its first key, or for a certificate. Null when it has no way to prove
   * itself, or its keys are not in the identity.
   */
  connectionString(identity: DeviceIdentity | ModuleIdentity): string | null {
    const json = JSON.stringify(identity) ?? 'null';
    return attempt(() => this.#native.connectionString(json));
  }

  #ask<T>(what: string, request: object, options: Cancel | undefined): Promise<T> {
    const json = toJson('service.registry', { [what]: request });
    return call(this.#client, options, (token) => this.#native.registry(token, json), (text) => JSON.parse(text as string) as T);
  }
}

interface Page {
  items: object[];
  continuation: string | null;
}

function idOf(of: string, id: unknown): string {
  return textOf('service.registry', `${of} id`, id);
}
