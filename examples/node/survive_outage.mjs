// The hub is away and the device program is restarted; nothing is lost, nothing comes twice, the order is kept.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeviceClient, ServiceClient } from 'whimbrel';
import { LocalHub } from 'whimbrel-hub';

const MESSAGES = 500;
const numbers = Array.from({ length: MESSAGES }, (_, number) => number);
const encoder = new TextEncoder();
const decoder = new TextDecoder();

const hub = await LocalHub.start();
const connectionString = await hub.createDevice('pump-3');
const outbox = await mkdtemp(join(tmpdir(), 'outbox-'));
const options = { outbox, backoffMinMs: 10, backoffMaxMs: 100, closeDeadlineMs: 0, ...hub.deviceOptions() };
await hub.stop();
console.log('the hub is away');

// Two lives of the device program: each sends its half and ends, with no hub in sight.
for (const half of [numbers.slice(0, MESSAGES / 2), numbers.slice(MESSAGES / 2)]) {
  const device = await DeviceClient.open(connectionString, options);
  await device.sendMany(half.map((number) => encoder.encode(String(number))));
  console.log(`the device has ${device.account().queued} messages in its outbox and is restarted`);
  await device.close();
}

await hub.restart();
console.log('the hub is back');
const device = await DeviceClient.open(connectionString, options);
const left = await device.flush(30_000);
const { accepted, delivered } = device.account();
console.log(`accepted ${accepted} = delivered ${delivered} + queued ${left}`);
await device.close();

/** @type {number[]} */
const read = [];
const service = await ServiceClient.connect(hub.serviceConnectionString, hub.serviceOptions());
const events = await service.events({ position: 'beginning' });
for await (const event of events) {
  read.push(Number(decoder.decode(event.body)));
  if (read.length === MESSAGES) break;
}
if (read.join() !== numbers.join() || left !== 0 || delivered !== MESSAGES) {
  throw new Error(`${left} messages are left, and these events came: ${read}`);
}
console.log(`read ${MESSAGES} events, each once, in order`);

await events.close();
await service.close();
await hub.close();
await rm(outbox, { recursive: true });
