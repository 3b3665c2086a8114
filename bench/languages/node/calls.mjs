// What one call across the border costs without I/O, and how long single native calls keep the event loop's thread.

import { join, dirname } from 'node:path';

import { concurrently, options, require } from './common.mjs';
import { LONG, open } from './whimbrel_common.mjs';

const given = options();
const folder = dirname(require.resolve('whimbrel'));
const { native } = require(join(folder, 'native.js'));
const { DeviceClient } = require('whimbrel');

console.log(JSON.stringify({ nanoseconds: await costs(), native_calls: await nativeCalls() }));
process.exit(0);

/** Nanoseconds of a call, the median of nine series. */
async function costs() {
  const text = 'HostName=bench.example;DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0';
  const device = await DeviceClient.open(text, {
    outboxInMemory: true,
    server: 'mqtt://127.0.0.1:9',
    overflow: 'drop-oldest',
    closeDeadlineMs: 0,
  });
  const receipt = await device.send(given.body);
  const nothing = () => {};
  const calls = {
    receipt_state: () => receipt.state(),
    account: () => device.account(),
    refused_send: () => device.send('no bytes').catch(nothing),
    send_in_memory: () => device.send(given.body).catch(nothing),
  };
  const found = {};
  for (const [name, call] of Object.entries(calls)) {
    const series = [];
    for (let round = 0; round < 9; round += 1) {
      const count = 1000;
      const start = process.hrtime.bigint();
      for (let at = 0; at < count; at += 1) call();
      series.push(Number(process.hrtime.bigint() - start) / count);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    series.sort((a, b) => a - b);
    found[name] = Math.round(series[4]);
  }
  await device.close();
  return found;
}

/** Microseconds in native calls by the clock on the wall, by name: this Node tells no time of a thread. */
async function nativeCalls() {
  const taken = new Map();
  const watched = (name, work) => {
    const times = [];
    taken.set(name, times);
    return function (...parts) {
      const start = process.hrtime();
      try {
        return work.apply(this, parts);
      } finally {
        const [seconds, nanoseconds] = process.hrtime(start);
        times.push(seconds * 1e9 + nanoseconds);
      }
    };
  };
  native.send = watched('send', native.send);
  native.Device.prototype.sendMany = watched('Device.sendMany', native.Device.prototype.sendMany);
  native.Environment.prototype.drain = watched('Environment.drain', native.Environment.prototype.drain);
  const device = await open(given);
  await concurrently(given.messages / 2, given.concurrency, () => device.send(given.body));
  for (let left = given.messages / 2; left > 0; left -= given.batch) {
    await device.sendMany(Array(given.batch).fill(given.body));
  }
  await device.flush(LONG);
  await device.close();
  const found = {};
  for (const [name, times] of taken) {
    if (times.length === 0) throw new Error(`${name} was not called through the object it was watched on`);
    const ordered = Float64Array.from(times).sort();
    const at = (part) => Math.round(ordered[Math.min(ordered.length - 1, Math.floor(part * ordered.length))] / 100) / 10;
    const over = ordered.reduce((count, time) => count + (time > 50_000), 0);
    found[name] = { calls: ordered.length, p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1), over_50_us: over };
  }
  return found;
}
