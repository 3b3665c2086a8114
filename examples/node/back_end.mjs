// A back end reads events with checkpoints, and sends a command and follows it to its end.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeviceClient, FileCheckpoints, ServiceClient } from 'whimbrel';
import { LocalHub } from 'whimbrel-hub';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const hub = await LocalHub.start();
const connectionString = await hub.createDevice('thermostat-1');
const device = await DeviceClient.open(connectionString, { outboxInMemory: true, ...hub.deviceOptions() });
await device.sendJson({ t: 31.5 });

// The back end: the connection string of a policy, and for this hub the addresses it listens on.
const service = await ServiceClient.connect(hub.serviceConnectionString, hub.serviceOptions());
const folder = await mkdtemp(join(tmpdir(), 'checkpoints-'));

/** Deals with one event, and gives what it said. */
async function backEnd() {
  // Several programs that open the same folder share the partitions. After a restart this goes on behind the checkpoints.
  const events = await service.events({ checkpoints: new FileCheckpoints(folder) });
  try {
    for await (const event of events) {
      const said = decoder.decode(event.body);
      console.log(`${event.deviceId} says ${said}, number ${event.sequence} of partition ${event.partition}`);
      await event.checkpoint();
      return said;
    }
    throw new Error('the reader was closed');
  } finally {
    await events.close();
  }
}

const said = [await backEnd()];
await device.sendJson({ t: 31.7 });
said.push(await backEnd());
if (said.join() !== '{"t":31.5},{"t":31.7}') throw new Error(`the second reader did not go on behind the first: ${said}`);

// When this resolves, the hub has stored the command for the device, be it connected or not.
const tracked = await service.send('thermostat-1', encoder.encode('cool down'), { expiresInMs: 600_000 });
console.log(`command ${tracked.messageId} is on its way`);

// On the device: taken when the program is ready, completed when it was done.
const command = await device.inbox().next();
if (command === null) throw new Error('the device was closed');
console.log(`the device does: ${decoder.decode(command.body)}`);
await command.complete();

// After a restart, the message id alone leads back to it.
const outcome = await service.tracked('thermostat-1', tracked.messageId).outcome();
console.log(`it ended as ${outcome}`);
if (outcome !== 'completed') throw new Error('it was not completed');

await service.close();
await device.close();
await hub.close();
await rm(folder, { recursive: true });
