// A back end with azure-iothub for Node, as its documentation shows: makes a device, sends it commands, and reads feedback until
// it has heard of each. The task comes as JSON on stdin; the feedback records are printed, each as a line of JSON.
'use strict';

const fs = require('node:fs');
const { promisify } = require('node:util');
const { Client, Registry } = require('azure-iothub');
const { Message } = require('azure-iot-common');

async function main() {
  const task = JSON.parse(fs.readFileSync(0, 'utf8'));
  if (task.registry) await manage(task);
  if (task.commands) await command(task);
}

// Creates, reads, changes, lists and deletes a device.
async function manage(task) {
  const registry = Registry.fromConnectionString(task.connection_string);
  const { responseBody: made } = await registry.create({ deviceId: task.registry, status: 'enabled' });
  assert(made.authentication.symmetricKey.primaryKey, 'the new device has no key');
  const { responseBody: read } = await registry.get(task.registry);
  assert(read.etag === made.etag && read.generationId === made.generationId, 'the device changed by being read');
  const { responseBody: changed } = await registry.update({ ...read, status: 'disabled', statusReason: 'for a while' });
  assert(changed.status === 'disabled' && changed.statusReason === 'for a while', 'the change did not come back');
  const { responseBody: all } = await registry.list();
  assert(all.some((device) => device.deviceId === task.registry), 'the list does not have the device');
  await registry.delete(task.registry);
  const gone = await registry.get(task.registry).then(
    () => 'still there',
    (error) => error.constructor.name,
  );
  assert(gone === 'DeviceNotFoundError', `after deleting: ${gone}`);
}

async function command(task) {
  const client = Client.fromConnectionString(task.connection_string);
  await client.open();
  const feedback = await promisify((done) => client.getFeedbackReceiver(done))();
  const waiting = new Set(task.commands.map(({ id }) => id));
  const heard = new Promise((resolve, reject) => {
    feedback.on('error', reject);
    feedback.on('message', (message) => {
      for (const record of JSON.parse(message.data.toString())) {
        console.log(JSON.stringify(record));
        waiting.delete(record.originalMessageId);
      }
      feedback.complete(message, (error) => {
        if (error) reject(error);
        else if (waiting.size === 0) resolve();
      });
    });
  });
  for (const { id, body, properties } of task.commands) {
    const message = new Message(body);
    message.messageId = id;
    message.ack = 'full';
    for (const [name, value] of Object.entries(properties ?? {})) message.properties.add(name, value);
    await client.send(task.device, message);
  }
  const unknown = await client.send('nobody-of-this-name', new Message('x')).then(
    () => 'accepted',
    (error) => error.constructor.name,
  );
  assert(unknown === 'DeviceNotFoundError', `a command to nobody: ${unknown}`);
  await heard;
  await client.close();
}

function assert(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error.stack ?? error);
    process.exit(1);
  },
);
