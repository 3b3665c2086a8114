import { types } from 'node:util';
import type { Checkpoints as NativeCheckpoints, Events, StoredEvent } from '../native.js';
import { attempt, call, type Cancel, nothing, pull } from './calls.js';
import { disposable } from './dispose.js';
import { invalid } from './errors.js';
import { dateOf, type Head, type HeadDocument } from './inbox.js';
import { native } from './native.js';
import { textOf, toJson } from './options.js';

/** Where to begin in a partition. */
export type Position =
  | 'beginning'
  | 'end'
  | {
      /** The event with this number. */
      sequence: bigint | number;
    }
  | {
      /** The event at this offset. */
      offset: string;
    }
  | {
      /** The first event stored at this time or later. */
      time: Date;
    };

/** Where checkpoints are kept. One object may serve any number of readers. */
export abstract class Checkpoints {
  readonly #native: NativeCheckpoints;

  /** @internal */
  protected constructor(native: NativeCheckpoints) {
    this.#native = native;
  }

  /** @internal */
  static native(checkpoints: Checkpoints): NativeCheckpoints {
    return checkpoints.#native;
  }
}

/** Checkpoints in files of a folder, for readers on one machine. The folder is opened, and made, with the first reader. */
export class FileCheckpoints extends Checkpoints {
  /** @param folder The folder. */
  constructor(folder: string) {
    const text = textOf('checkpoints.file', 'folder', folder);
    super(attempt(() => native.Checkpoints.file(text)));
  }
}

/** Checkpoints on the hub, for readers on any machine. Our hub only. */
export class HubCheckpoints extends Checkpoints {
  constructor() {
    super(attempt(() => native.Checkpoints.hub()));
  }
}

/** Checkpoints in memory, for readers that share this object. */
export class MemoryCheckpoints extends Checkpoints {
  constructor() {
    super(attempt(() => native.Checkpoints.memory()));
  }
}

/** How to read events. */
export interface EventsOptions {
  /** The consumer group. Default `$Default`. */
  group?: string | undefined;
  /** Where to begin in partitions without a checkpoint. Default `beginning`. */
  position?: Position | undefined;
  /** Begins behind these checkpoints, and makes {@link Event.checkpoint} possible. */
  checkpoints?: Checkpoints | undefined;
  /** Reads these partitions only, and shares them with nobody. Default: all there are. */
  partitions?: readonly number[] | undefined;
  /** Events of a partition that are fetched before they are asked for, at most. */
  prefetch?: number | undefined;
  /** How often a reader says that it still has its partitions, in milliseconds; with `ownershipLastsMs`. */
  ownershipRenewMs?: number | bigint | undefined;
  /** How long others believe it, in milliseconds. */
  ownershipLastsMs?: number | bigint | undefined;
}

/** @internal */
export function eventsJson({ checkpoints: _, position, ...rest }: EventsOptions & Cancel): string {
  return toJson('service.events', rest, position === undefined || position === null ? {} : { from: positionOf(position) });
}

/** A message of a device, as it was stored. */
export class Event implements Head {
  readonly #native: StoredEvent;
  /** The device that sent it, as the hub knows it; empty when the hub does not say. */
  readonly deviceId: string;
  /** The module that sent it. */
  readonly moduleId: string | null;
  /** The generation of the device: another one is another device of the same name. */
  readonly generation: string | null;
  /** How the sender proved itself, as JSON. */
  readonly authMethod: string | null;
  /** What kind of event it is; `Telemetry` for messages of devices. */
  readonly source: string | null;
  /** Its partition. */
  readonly partition: number;
  /** Its number in the partition. */
  readonly sequence: bigint;
  /** Its offset in the partition. */
  readonly offset: string;
  /** When it was stored, by the hub's clock. */
  readonly enqueuedAt: Date;
  /** What was sent. */
  readonly body: Uint8Array;
  readonly properties: Readonly<Record<string, string>>;
  readonly messageId: string | null;
  readonly correlationId: string | null;
  readonly userId: string | null;
  readonly contentType: string | null;
  readonly contentEncoding: string | null;
  readonly creationTime: Date | null;
  /** Schema of the content. */
  readonly messageSchema: string | null;
  /** Output of the module. */
  readonly outputName: string | null;
  /** Interface id of a security message. */
  readonly interfaceId: string | null;
  /** Component the message belongs to. */
  readonly component: string | null;

  private constructor([native, body, head]: [StoredEvent, Uint8Array, string]) {
    const document = JSON.parse(head) as EventDocument;
    this.#native = native;
    this.deviceId = document.deviceId;
    this.moduleId = document.moduleId;
    this.generation = document.generation;
    this.authMethod = document.authMethod;
    this.source = document.source;
    this.partition = document.partition;
    this.sequence = BigInt(document.sequence);
    this.offset = document.offset;
    this.enqueuedAt = new Date(document.enqueuedAt);
    this.body = body;
    this.properties = document.properties;
    this.messageId = document.messageId;
    this.correlationId = document.correlationId;
    this.userId = document.userId;
    this.contentType = document.contentType;
    this.contentEncoding = document.contentEncoding;
    this.creationTime = dateOf(document.creationTime);
    this.messageSchema = document.messageSchema;
    this.outputName = document.outputName;
    this.interfaceId = document.interfaceId;
    this.component = document.component;
  }

  /** @internal */
  static of(taken: [StoredEvent, Uint8Array, string]): Event {
    return new Event(taken);
  }

  /**
   * Stores that this event, and all before it in its partition, were dealt with: readers of the group begin behind it. Every few
   * events or seconds is often enough. An abort stops the waiting, not the storing.
   *
   * @throws {@link WhimbrelError} `WHIMBREL_UNSUPPORTED` for a reader without checkpoints; `WHIMBREL_CONFLICT` when another
   * reader has the partition now: it gets this event again; and what the store says.
   */
  async checkpoint(options?: Cancel): Promise<void> {
    return call(this, options, (token) => this.#native.checkpoint(token), nothing, true);
  }
}

/**
 * A stream of events, in order within each partition: `for await (const event of reader)`. Reconnects by itself and goes on
 * behind the last event it handed out, without a gap. To be closed when it is not needed any more, so that others take over its
 * partitions at once.
 */
export class EventReader implements AsyncIterable<Event>, AsyncDisposable {
  readonly #native: Events;
  /** What this reader is called among those that share partitions; random. */
  readonly name: string;

  private constructor(native: Events) {
    this.#native = native;
    this.name = native.reader;
  }

  /** @internal */
  static of(native: Events): EventReader {
    return new EventReader(native);
  }

  /**
   * The next event; waits for it. Null after the reader or its client was closed. An abort loses nothing.
   *
   * @throws {@link WhimbrelError} What will not pass by itself: `WHIMBREL_UNAUTHORIZED`, `WHIMBREL_NOT_FOUND` for the consumer
   * group, `WHIMBREL_PROTOCOL` for an event that cannot be read and is passed over, the checkpoint store's. The reader goes on.
   */
  async next(options?: Cancel): Promise<Event | null> {
    const taken = await pull(this, this.#native, options);
    return taken && Event.of(taken);
  }

  /** Stops reading and gives up its partitions. Events that were not handed out are not lost. Closing twice is fine. */
  async close(): Promise<void> {
    return call(this, undefined, (token) => this.#native.close(token), nothing);
  }

  async *[Symbol.asyncIterator](): AsyncIterableIterator<Event> {
    for (let event; (event = await this.next()) !== null; ) yield event;
  }

  /** {@link EventReader.close}, for `await using`. */
  declare [Symbol.asyncDispose]: () => Promise<void>;
}

disposable(EventReader);

function positionOf(position: Position): unknown {
  if (typeof position !== 'object' || position === null || !('time' in position)) return position;
  if (!types.isDate(position.time)) throw invalid('service.events', 'the time of the position is not a Date');
  return { time_ms: position.time.getTime() };
}

interface EventDocument extends HeadDocument {
  deviceId: string;
  moduleId: string | null;
  generation: string | null;
  authMethod: string | null;
  source: string | null;
  partition: number;
  sequence: string;
  offset: string;
  enqueuedAt: number;
}
