import { failure, opened } from './errors.js';
import { native } from './native.js';

/** How to stop waiting. */
export interface Cancel {
  /** When it is aborted, the call rejects with its reason. What the call began goes on, unless it says otherwise. */
  signal?: AbortSignal | undefined;
}

/** @internal Somebody who waits for a result of the native half. */
export interface Waiter {
  /** The result is two numbers. */
  pair(first: number, second: number): void;
  /** It is something else. */
  value(value: unknown): void;
  /** There is none. */
  fail(reason: unknown): void;
}

/** Who waits, by token. An entry keeps its client, so a client is not collected while a call of it is under way. */
const waiters = new Map<number, Waiter>();
let lastToken = 0;
/** Open clients. */
let clients = 0;
let held = false;
let log: ((line: string) => void) | undefined;

/** @internal */
export const environment = new native.Environment(drain);

/** @internal A token for the next call. */
export function token(): number {
  return ++lastToken;
}

/** @internal The native half was given `token`: its result is for `waiter`. */
export function wait(token: number, waiter: Waiter): void {
  if (!held) hold();
  waiters.set(token, waiter);
}

/** @internal Nobody waits for `token` any more. */
export function forget(token: number): void {
  waiters.delete(token);
  release();
}

/** @internal Who gets the lines of the log. */
export function onLog(take: ((line: string) => void) | undefined): void {
  log = take;
}

/**
 * @internal Begins a call and waits for its result. `owner` is kept meanwhile. After an abort the call is cancelled, or goes on
 * where `leave` says so.
 */
export function call<T>(
  owner: object,
  cancel: Cancel | undefined,
  begin: (token: number) => void,
  make: (value: unknown) => T,
  leave = false,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const signal = cancel?.signal;
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const given = token();
    try {
      begin(given);
    } catch (thrown) {
      reject(failure(thrown));
      return;
    }
    let unwatch: (() => void) | undefined;
    const value = (result: unknown) => {
      unwatch?.();
      try {
        resolve(make(result));
      } catch (thrown) {
        reject(failure(thrown));
      }
    };
    const fail = (reason: unknown) => {
      unwatch?.();
      reject(reason);
    };
    wait(given, { pair: (first, second) => value([first, second]), value, fail, owner } as Waiter);
    if (signal) {
      unwatch = watch(signal, () => {
        // One that is left gives its result to nobody, but keeps the process until it is there.
        if (leave) waiters.set(given, NOBODY);
        else {
          environment.cancel(given);
          forget(given);
        }
        reject(signal.reason);
      });
    }
  });
}

/** @internal What an interrupted wait leaves behind. */
export const NOBODY: Waiter = { pair() {}, value() {}, fail() {} };

/** A stream of the native half: `take` gives null at its end, and undefined when there is nothing yet. */
interface Stream<T> {
  take(): T | null | undefined;
  ready(token: number): void;
  passOn(): void;
}

/**
 * @internal The next item. It is taken in the step in which this resolves, so an abort swallows none: whoever was told that
 * there is something and stops waiting tells the others.
 */
export async function pull<T>(owner: object, stream: Stream<T>, cancel: Cancel | undefined): Promise<T | null> {
  const signal = cancel?.signal;
  if (signal?.aborted) throw signal.reason;
  for (;;) {
    const taken = attempt(() => stream.take());
    if (taken !== undefined) return taken;
    try {
      await call(owner, cancel, (token) => stream.ready(token), nothing);
    } catch (thrown) {
      if (signal?.aborted) stream.passOn();
      throw thrown;
    }
    if (signal?.aborted) {
      stream.passOn();
      throw signal.reason;
    }
  }
}

/** @internal Calls the native half, with its errors as ours. */
export function attempt<T>(work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw failure(thrown);
  }
}

/** @internal */
export function nothing(): undefined {}

/** @internal One object that has to be closed. */
export class Lease {
  #open = true;

  constructor(owner: object, name: string) {
    clients += 1;
    if (!held) hold();
    leases.register(owner, name, this);
  }

  /** It is being closed: nobody has to be warned. */
  closing(): void {
    leases.unregister(this);
  }

  /** It is closed: the process may end. */
  closed(): void {
    if (!this.#open) return;
    this.#open = false;
    clients -= 1;
    release();
  }
}

/** Clients that were not closed are reported. They stay open, so the process does not end by itself: when it does must not depend on
 *  when memory was collected. */
const leases = new FinalizationRegistry<string>((name) => {
  process.emitWarning(`A ${name} was not closed and cannot be reached any more. Call close(), or use "await using".`, {
    type: 'WhimbrelWarning',
    code: 'WHIMBREL_UNCLOSED',
  });
});

/** Takes what is there, some at a time, so that timers and sockets have their turn. */
function drain(): void {
  const results = environment.drain(SLICE);
  if (results[0]) setImmediate(drain);
  const pairs = results[1] as Float64Array;
  for (let index = 0; index < pairs.length; index += 3) {
    taken(pairs[index]!)?.pair(pairs[index + 1]!, pairs[index + 2]!);
  }
  for (let index = 2; index < results.length; index += 3) {
    const token = results[index] as number;
    const error = results[index + 1] as string | null;
    if (token === LOG) log?.(results[index + 2] as string);
    else if (error !== null) taken(token)?.fail(opened(error));
    else taken(token)?.value(results[index + 2]);
  }
  if (clients === 0) release();
}

function taken(token: number): Waiter | undefined {
  const waiter = waiters.get(token);
  waiters.delete(token);
  return waiter;
}

function hold(): void {
  held = true;
  environment.hold(nothing);
}

function release(): void {
  if (held && clients === 0 && waiters.size === 0) {
    held = false;
    environment.release();
  }
}

/**
 * @internal Calls `stop` when `signal` is aborted, until the function it returns is called. A signal that many calls share has
 * one listener.
 */
export function watch(signal: AbortSignal, stop: () => void): () => void {
  let stops = watched.get(signal);
  if (stops === undefined) {
    const all = new Set<() => void>();
    const listener = () => {
      watched.delete(signal);
      for (const stop of all) stop();
    };
    stops = { all, listener };
    watched.set(signal, stops);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { all, listener } = stops;
  all.add(stop);
  return () => {
    all.delete(stop);
    if (all.size === 0 && watched.get(signal)?.all === all) {
      watched.delete(signal);
      signal.removeEventListener('abort', listener);
    }
  };
}

const watched = new WeakMap<AbortSignal, { all: Set<() => void>; listener: () => void }>();
/** Results taken at a time. */
const SLICE = 512;
const LOG = -1;
