// An alert overtakes all the telemetry that waits.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeviceClient, ServiceClient } from 'whimbrel';
import { LocalHub } from 'whimbrel-hub';

const READINGS = 1_000;
const readings = Array.from({ length: READINGS }, (_, number) => String(number));
const encoder = new TextEncoder();
const decoder = new TextDecoder();

const hub = await LocalHub.start();
const connectionString = await hub.createDevice('boiler-7');
await hub.stop();
const outbox = await mkdtemp(join(tmpdir(), 'outbox-'));
const device = await DeviceClient.open(connectionString, {
  outbox,
  backoffMinMs: 10,
  backoffMaxMs: 100,
  ...hub.deviceOptions(),
});

// While the hub is away, readings pile up. Then something happens.
await device.sendMany(readings.map((reading) => encoder.encode(reading)));
const alert = await device.send(encoder.encode('overheat'), { lane: 'alert', properties: { limit: '95' } });
console.log(`${READINGS} readings wait, and behind them an alert`);

await hub.restart();
const outcome = await alert.outcome();
console.log(`the alert ended as ${outcome.kind}`);
const left = await device.flush(30_000);
if (outcome.kind !== 'delivered' || left !== 0) {
  throw new Error(`the alert ended as ${outcome.kind}, and ${left} messages are left`);
}
await device.close();

/** @type {string[]} */
const read = [];
const service = await ServiceClient.connect(hub.serviceConnectionString, hub.serviceOptions());
const events = await service.events({ position: 'beginning' });
for await (const event of events) {
  read.push(decoder.decode(event.body));
  if (read.length === READINGS + 1) break;
}
console.log(`the first of ${read.length} events: ${read[0]}`);
if (read.join() !== ['overheat', ...readings].join()) {
  throw new Error('the alert was not first, or the readings were out of order');
}

await events.close();
await service.close();
await hub.close();
await rm(outbox, { recursive: true });
