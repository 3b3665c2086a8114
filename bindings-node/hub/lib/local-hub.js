'use strict';
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { findProgram } = require('./program.js');

/** @typedef {import('../index.js').Listener} Listener */
/** @typedef {import('../index.js').LocalHubOptions} LocalHubOptions */
/** @typedef {import('node:child_process').ChildProcessByStdio<import('node:stream').Writable, null, null>} Process */

/** @type {readonly Listener[]} */
const LISTENERS = ['mqtt', 'mqtts', 'amqp', 'amqps', 'http', 'https'];
/** They say what hub there is to be, and that is for this module to say. */
const FOREIGN = /^WHIMBREL_(HUB_|DATA$)/;
const STOP_TIMEOUT_MS = 60_000;
const REQUEST_TIMEOUT_MS = 30_000;

/** Those that are not closed: nothing of them is to be left when this process ends. @type {Set<LocalHub>} */
const open = new Set();

class LocalHub {
  /** @type {string} */ #folder;
  /** The folder to delete. @type {string | undefined} */ #temporary;
  /** @type {Record<string, string | number | boolean>} */ #settings;
  /** @type {string | undefined} */ #program;
  /** @type {number} */ #startTimeoutMs;
  /** @type {Process | undefined} */ #process;
  /** Addresses after the first start. @type {Record<string, string>} */ #addresses = {};
  /** What the hub says about itself. @type {Record<string, unknown>} */ #service = {};
  /** Starts and stops follow one another. @type {Promise<unknown>} */ #turn = Promise.resolve();

  /** @param {LocalHubOptions} options */
  constructor({ folder, settings = {}, program, startTimeoutMs = 60_000 }) {
    for (const name of ['data', 'memory']) {
      if (name in settings) {
        throw new TypeError(`the setting ${name} is not for a LocalHub: it finds its hub by the data folder (see folder)`);
      }
    }
    this.#settings = { ...settings };
    this.#program = program;
    this.#startTimeoutMs = startTimeoutMs;
    if (folder === undefined) this.#temporary = fs.mkdtempSync(path.join(os.tmpdir(), 'whimbrel-hub-'));
    this.#folder = this.#temporary === undefined ? path.resolve(folder ?? '') : path.join(this.#temporary, 'data');
  }

  /** @param {LocalHubOptions} [options] */
  static async start(options = {}) {
    const hub = new LocalHub(options);
    if (open.size === 0) process.on('exit', LocalHub.#releaseAll);
    open.add(hub);
    try {
      await hub.#inTurn(() => hub.#start());
    } catch (error) {
      await hub.close();
      throw error;
    }
    return hub;
  }

  get running() {
    return this.#process !== undefined && runs(this.#process);
  }

  get pid() {
    return this.running ? this.#process?.pid : undefined;
  }

  get folder() {
    return this.#folder;
  }

  get log() {
    try {
      return fs.readFileSync(this.#logFile, 'utf8').slice(-4000);
    } catch {
      return '';
    }
  }

  get caFile() {
    return this.#known('ca');
  }

  get serviceConnectionString() {
    return this.#known('connection_string');
  }

  /** @param {Listener} listener */
  address(listener) {
    if (!LISTENERS.includes(listener)) {
      throw new TypeError(`there is no listener ${listener}: they are ${LISTENERS.join(', ')}`);
    }
    return withoutScheme(this.#known(listener));
  }

  /** @param {Listener} [listener] */
  deviceOptions(listener = 'mqtt') {
    const server = `${listener}://${this.address(listener)}`;
    return listener.endsWith('s') ? { server, caFile: this.caFile } : { server };
  }

  serviceOptions() {
    return { server: `amqp://${this.address('amqp')}`, httpServer: `http://${this.address('http')}` };
  }

  /** @param {string} deviceId */
  async createDevice(deviceId) {
    const parts = this.serviceConnectionString.split(';').map((part) => /** @type {const} */ ([
      part.slice(0, part.indexOf('=')),
      part.slice(part.indexOf('=') + 1),
    ]));
    const policy = new Map(parts);
    const { status, text } = await request(`http://${this.address('http')}/v1/devices/${encodeURIComponent(deviceId)}`, {
      // The key itself, as the hub allows on its own machine.
      authorization: `Bearer ${policy.get('SharedAccessKeyName')}:${policy.get('SharedAccessKey')}`,
      'content-type': 'application/json',
    });
    if (status < 200 || status > 299) {
      throw new Error(`the hub did not create ${deviceId}: ${status} ${message(text)}`);
    }
    return String(JSON.parse(text).connection_string);
  }

  async stop() {
    await this.#inTurn(() => this.#stop());
  }

  async kill() {
    await this.#inTurn(() => this.#kill());
  }

  async restart() {
    await this.#inTurn(async () => {
      if (!open.has(this)) throw new Error('this LocalHub is closed: start a new one');
      await this.#stop();
      await this.#start();
    });
  }

  async close() {
    await this.#inTurn(async () => {
      try {
        await this.#stop();
      } finally {
        this.#release();
      }
    });
  }

  /** No process and no temporary folder any more, now. */
  #release() {
    this.#process?.kill('SIGKILL');
    if (this.#temporary !== undefined) {
      fs.rmSync(this.#temporary, { recursive: true, force: true, maxRetries: 3 });
    }
    open.delete(this);
    if (open.size === 0) process.off('exit', LocalHub.#releaseAll);
  }

  static #releaseAll() {
    for (const hub of open) hub.#release();
  }

  static {
    const { asyncDispose } = Symbol;
    // Not in every Node 18.
    if (asyncDispose !== undefined) {
      Object.defineProperty(LocalHub.prototype, asyncDispose, {
        /** @this {LocalHub} */
        value() {
          return this.close();
        },
        configurable: true,
        writable: true,
      });
    }
  }

  get #logFile() {
    return `${this.#folder}.log`;
  }

  /** @param {string} name */
  #known(name) {
    const value = this.#service[name];
    if (value === undefined || value === null) throw new Error(`this hub has no ${name}: it is off by a setting`);
    return String(value);
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  #inTurn(work) {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #start() {
    fs.mkdirSync(path.dirname(this.#folder), { recursive: true });
    const settings = Object.fromEntries(LISTENERS.map((name) => [name, this.#addresses[name] ?? '127.0.0.1:0']));
    const flags = Object.entries({ ...settings, ...this.#settings }).map(([name, value]) => `--${name}=${value}`);
    const kept = Object.entries(process.env).filter(([name]) => !FOREIGN.test(name));
    const program = this.#program ?? findProgram();
    const log = fs.openSync(this.#logFile, 'a');
    /** @type {Process} */
    let child;
    try {
      const spawned = spawn(program, ['hub', '--while-stdin', '--data', this.#folder, ...flags], {
        stdio: ['pipe', log, log],
        env: Object.fromEntries(kept),
        windowsHide: true,
      });
      child = /** @type {Process} */ (/** @type {unknown} */ (spawned));
    } finally {
      fs.closeSync(log);
    }
    if (child.pid === undefined) {
      const [cause] = await once(child, 'error');
      throw new Error(`${program} cannot be run: ${cause.message}`, { cause });
    }
    child.on('error', () => {});
    child.stdin.on('error', () => {});
    // This process may end without stopping the hub: then its input ends, and so does the hub.
    child.unref();
    /** @type {{ unref?: () => void }} */ (child.stdin).unref?.();
    this.#process = child;
    const deadline = Date.now() + this.#startTimeoutMs;
    for (;;) {
      const ended = !runs(child);
      const service = readService(path.join(this.#folder, 'service.json'));
      // The hub writes the file when it listens; one with another process id is of an earlier life.
      if (service.pid === child.pid) {
        this.#service = service;
        break;
      }
      if (ended) {
        throw new Error(`the hub ended with ${child.exitCode ?? child.signalCode} instead of starting\n${this.log}`);
      }
      if (Date.now() > deadline) {
        await this.#kill();
        throw new Error(`the hub did not start within ${this.#startTimeoutMs} ms\n${this.log}`);
      }
      await sleep(5);
    }
    for (const name of LISTENERS) {
      const address = this.#service[name];
      this.#addresses[name] = typeof address === 'string' ? withoutScheme(address) : 'off';
    }
  }

  async #stop() {
    const child = this.#process;
    if (child === undefined || !runs(child)) return;
    // No signal on Windows means "stop"; the end of the input does.
    if (process.platform === 'win32') child.stdin.end();
    else child.kill('SIGTERM');
    if (!(await ended(child, STOP_TIMEOUT_MS))) {
      await this.#kill();
      throw new Error(`the hub did not stop within a minute\n${this.log}`);
    }
    child.stdin.destroy();
    if (child.exitCode !== 0) {
      throw new Error(`the hub ended with ${child.exitCode ?? child.signalCode}\n${this.log}`);
    }
  }

  async #kill() {
    const child = this.#process;
    if (child === undefined || !runs(child)) return;
    child.kill('SIGKILL');
    await ended(child);
    child.stdin.destroy();
  }
}

/** @param {Process} child */
function runs(child) {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}

/**
 * Waits for the end of a process; `false` when it takes longer than that.
 *
 * @param {Process} child
 * @param {number} [limitMs]
 */
async function ended(child, limitMs) {
  if (!runs(child)) return true;
  const limit = new AbortController();
  const timer = limitMs === undefined ? undefined : setTimeout(() => limit.abort(), limitMs);
  // While somebody waits for its end, this process has to stay.
  child.ref();
  try {
    await once(child, 'exit', { signal: limit.signal });
    return true;
  } catch (error) {
    if (limit.signal.aborted) return false;
    throw error;
  } finally {
    clearTimeout(timer);
    child.unref();
  }
}

/**
 * @param {string} file
 * @returns {Record<string, unknown>}
 */
function readService(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return {};
  }
}

/** @param {string} address */
function withoutScheme(address) {
  return address.slice(address.lastIndexOf('/') + 1);
}

/**
 * @param {string} url
 * @param {Record<string, string>} headers
 * @returns {Promise<{ status: number, text: string }>}
 */
function request(url, headers) {
  return new Promise((resolve, reject) => {
    const asked = http.request(url, { method: 'PUT', headers, agent: false, timeout: REQUEST_TIMEOUT_MS }, (answer) => {
      /** @type {Buffer[]} */
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('error', reject);
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString() }));
    });
    asked.on('timeout', () => asked.destroy(new Error('the hub does not answer')));
    asked.on('error', reject);
    asked.end('{}');
  });
}

/** @param {string} text */
function message(text) {
  try {
    return String(JSON.parse(text).message ?? text);
  } catch {
    return text;
  }
}

module.exports = { LocalHub };
