// A back end sends commands to a device, which deals with one and rejects another; the back end sees how they ended.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeviceClient, ServiceClient } from 'whimbrel';
import { LocalHub } from 'whimbrel-hub';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const hub = await LocalHub.start();
const connectionString = await hub.createDevice('valve-2');
const service = await ServiceClient.connect(hub.serviceConnectionString, hub.serviceOptions());

// The device is away. Its commands wait at the hub.
const opening = await service.send('valve-2', encoder.encode('open'), { messageId: 'c-1' });
const singing = await service.send('valve-2', encoder.encode('sing'), { messageId: 'c-2' });
console.log(`sent ${opening.messageId} and ${singing.messageId}`);

const outbox = await mkdtemp(join(tmpdir(), 'outbox-'));
const device = await DeviceClient.open(connectionString, { outbox, ...hub.deviceOptions() });
let settled = 0;
for await (const command of device.inbox()) {
  const text = decoder.decode(command.body);
  console.log(`the device is asked to ${text}`);
  // Nothing is acknowledged before the program says so, and what is completed never comes again.
  if (text === 'open') await command.complete();
  else await command.reject();
  settled += 1;
  if (settled === 2) break;
}
await device.close();

for (const [tracked, expected] of /** @type {const} */ ([[opening, 'completed'], [singing, 'rejected']])) {
  const outcome = await tracked.outcome();
  console.log(`${tracked.messageId} ended as ${outcome}`);
  if (outcome !== expected) throw new Error(`${tracked.messageId} was to end as ${expected}`);
}

await service.close();
await hub.close();
await rm(outbox, { recursive: true });
