// What the programs of this folder share: the command line, the figures, the line that tells them.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';

export const TOPIC = 'devices/bench/messages/events/';

/** Packages are those of the folder the benchmark keeps them in, which is not above this file. */
export const require = createRequire(join(process.env.BENCH_MODULES ?? process.cwd(), 'package.json'));

/** The version of a package that was required, from the package.json nearest to its main file. */
export function version(name) {
  for (let folder = dirname(require.resolve(name)); ; folder = dirname(folder)) {
    try {
      const found = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      if (found.name === name) return found.version;
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
    if (folder === dirname(folder)) throw new Error(`${name} has no package.json`);
  }
}

/** The command line, the same for every subject; a subject ignores what it has no use for. */
export function options() {
  const text = (value) => ({ type: 'string', default: value });
  const { values } = parseArgs({
    options: {
      host: text('127.0.0.1'),
      port: text(undefined),
      messages: text('100000'),
      bytes: text('256'),
      concurrency: text('1000'),
      batch: text('512'),
      outbox: text(undefined),
      ca: text(undefined),
    },
  });
  for (const name of ['port', 'messages', 'bytes', 'concurrency', 'batch']) values[name] = Number(values[name]);
  return { ...values, body: new Uint8Array(values.bytes).fill(0x78) };
}

/** Runs `work` and prints the line; meanwhile a timer looks how late the event loop is. */
export async function measure(messages, version, work) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  const samples = [];
  let due = performance.now() + EVERY;
  let timer;
  const look = () => {
    const now = performance.now();
    samples.push(Math.max(0, now - due));
    due = now + EVERY;
    timer = setTimeout(look, EVERY);
  };
  const cpu = process.cpuUsage();
  const start = performance.now();
  timer = setTimeout(look, EVERY);
  await work();
  const seconds = (performance.now() - start) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  clearTimeout(timer);
  const line = {
    messages,
    seconds,
    cpu_seconds: (user + system) / 1e6,
    peak_rss_kib: process.resourceUsage().maxRSS,
    lag_us: quantiles(samples),
    version,
    runtime: `Node ${process.versions.node}`,
  };
  console.log(JSON.stringify(line));
}

/** Of milliseconds, in whole microseconds. */
function quantiles(samples) {
  if (samples.length === 0) return null;
  const ordered = Float64Array.from(samples).sort();
  const at = (part) => Math.round(1e3 * ordered[Math.min(ordered.length - 1, Math.floor(part * ordered.length))]);
  return { p50: at(0.5), p99: at(0.99), max: at(1), samples: ordered.length };
}

/** Calls `one` for each message, `concurrency` at a time. */
export async function concurrently(messages, concurrency, one) {
  let left = messages;
  const worker = async () => {
    while (left > 0) {
      left -= 1;
      await one();
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, messages) }, worker));
}

/** How often the timer looks, in milliseconds. Timers of Node are exact to a millisecond. */
const EVERY = 1;
