// A device sends a measurement, and a back end reads it.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeviceClient, ServiceClient } from 'whimbrel';
import { LocalHub } from 'whimbrel-hub';

// A hub for this program. In earnest it is `whimbrel hub` somewhere, or Azure IoT Hub.
const hub = await LocalHub.start();
const connectionString = await hub.createDevice('thermostat-1');

// Opening does not wait for the network. The outbox is a folder that survives this process.
const outbox = await mkdtemp(join(tmpdir(), 'outbox-'));
const device = await DeviceClient.open(connectionString, { outbox, ...hub.deviceOptions() });

// When this resolves, the message is on the disk: it is Whimbrel's job now.
const receipt = await device.sendJson({ t: 21.5 }, { properties: { room: 'attic' }, expiresInMs: 3_600_000 });

// Nobody has to wait for the outcome; it can also be asked for later, by receipt.messageId.
const outcome = await receipt.outcome();
if (outcome.kind !== 'delivered') throw new Error(`it ended as ${outcome.kind}`);
console.log(`stored in partition ${outcome.partition} as number ${outcome.sequence}`);
await device.close();

const service = await ServiceClient.connect(hub.serviceConnectionString, hub.serviceOptions());
const events = await service.events({ position: 'beginning' });
for await (const event of events) {
  console.log(`${event.deviceId} in the ${event.properties.room}: ${new TextDecoder().decode(event.body)}`);
  if (event.sequence !== outcome.sequence || event.contentType !== 'application/json') {
    throw new Error('this is not what was sent');
  }
  break;
}

await events.close();
await service.close();
await hub.close();
await rm(outbox, { recursive: true });
