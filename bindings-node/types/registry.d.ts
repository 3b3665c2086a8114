import { type Cancel } from './calls.js';
/** How a device or module proves itself. */
export type Authentication = {
    type: 'sas';
    /** Base64. Left out at creation, the hub makes them. */
    symmetricKey?: {
        primaryKey: string | null;
        secondaryKey: string | null;
    };
} | {
    type: 'selfSigned';
    x509Thumbprint: {
        primaryThumbprint: string | null;
        secondaryThumbprint: string | null;
    };
} | {
    type: 'certificateAuthority';
} | {
    type: 'none';
};
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
export declare class Registry {
    #private;
    private constructor();
    /**
     * Creates a device: by its id, with keys the hub makes, or as the identity says.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when it exists.
     */
    create(device: string | DeviceIdentity, options?: Cancel): Promise<DeviceIdentity>;
    /** A device. */
    get(deviceId: string, options?: Cancel): Promise<DeviceIdentity>;
    /**
     * Changes a device to what the identity says, if its etag is still the current one.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when it is not.
     */
    update(device: DeviceIdentity, options?: Cancel): Promise<DeviceIdentity>;
    /**
     * Deletes a device with its commands and modules; its events stay.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when the etag is not the current one.
     */
    delete(deviceId: string, options?: Condition): Promise<void>;
    /** Up to `limit` devices (1 to 1000; without it as many as the hub gives), in no particular order. For more, `query`. */
    list(options?: Cancel & {
        limit?: number | undefined;
    }): Promise<DeviceIdentity[]>;
    /** What a query finds, such as `SELECT * FROM devices`, a page at a time behind the scenes. */
    query(query: string, options?: Cancel & {
        pageSize?: number | undefined;
    }): AsyncIterableIterator<object>;
    /**
     * Creates a module of a device, with keys the hub makes unless the identity says otherwise.
     *
     * @throws {@link WhimbrelError} `WHIMBREL_CONFLICT` when it exists.
     */
    createModule(module: ModuleIdentity, options?: Cancel): Promise<ModuleIdentity>;
    /** A module. */
    getModule(deviceId: string, moduleId: string, options?: Cancel): Promise<ModuleIdentity>;
    /** Changes a module, if its etag is still the current one. */
    updateModule(module: ModuleIdentity, options?: Cancel): Promise<ModuleIdentity>;
    /** Deletes a module. */
    deleteModule(deviceId: string, moduleId: string, options?: Condition): Promise<void>;
    /** The modules of a device. */
    modules(deviceId: string, options?: Cancel): Promise<ModuleIdentity[]>;
    /** Ends all commands in the queue of a device as purged; how many. */
    purgeCommands(deviceId: string, options?: Cancel): Promise<number>;
    /**
     * The connection string of a device or module: with its first key, or for a certificate. Null when it has no way to prove
     * itself, or its keys are not in the identity.
     */
    connectionString(identity: DeviceIdentity | ModuleIdentity): string | null;
}
