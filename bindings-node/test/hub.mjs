// A hub as a child process, for the tests of this package.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ServiceClient } from '../dist/index.mjs';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
const binary = process.env.WHIMBREL_BINARY ?? join(target, 'debug', 'whimbrel');

/** Starts a hub with this test; it is stopped when the test has ended. */
export async function hubFor(test) {
  const folder = folderFor(test);
  const listeners = ['mqtt', 'amqp', 'http'].flatMap((name) => [`--${name}`, '127.0.0.1:0']);
  const off = ['mqtts', 'amqps', 'https'].flatMap((name) => [`--${name}`, 'off']);
  const arguments_ = ['hub', '--data', join(folder, 'data'), '--host-name', 'localhost', ...listeners, ...off];
  const child = spawn(binary, arguments_, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (text) => (said += text));
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.once('error', (error) => (said += `${error}`));
  test.after(async () => {
    child.kill('SIGINT');
    await ended;
  });
  const file = join(folder, 'data', 'service.json');
  const about = await until('the hub is up', () => {
    if (child.exitCode !== null || child.pid === undefined) throw new Error(`the hub has ended: ${said}`);
    return existsSync(file) && jsonOr(undefined, readFileSync(file, 'utf8'));
  });
  const url = (scheme, address) => `${scheme}://${String(address).replace(/^.*:\/\//, '')}`;
  return {
    connectionString: about.connection_string,
    deviceOptions: { server: url('mqtt', about.mqtt) },
    serviceOptions: { server: url('amqp', about.amqp), httpServer: url('http', about.http) },
    async service(options) {
      const service = await ServiceClient.connect(this.connectionString, { ...this.serviceOptions, ...options });
      test.after(() => service.close());
      return service;
    },
  };
}

/** A file that is still being written is no JSON yet. */
function jsonOr(otherwise, text) {
  try {
    return JSON.parse(text);
  } catch {
    return otherwise;
  }
}

/** A folder that goes with this test. */
export function folderFor(test) {
  const folder = mkdtempSync(join(tmpdir(), 'whimbrel-node-test-'));
  test.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

/** Waits for a condition, with a limit that only a failure reaches. */
export async function until(what, condition) {
  const limit = Date.now() + 60_000;
  for (;;) {
    const met = await condition();
    if (met) return met;
    if (Date.now() > limit) throw new Error(`it did not come to be: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A device that reaches no hub. */
export const NOWHERE = 'HostName=hub.example;DeviceId=d;SharedAccessKey=c2VjcmV0';
export const OFFLINE = { server: 'mqtt://127.0.0.1:9', closeDeadlineMs: 0 };
