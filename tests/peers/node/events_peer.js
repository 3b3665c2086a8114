// A reader with @azure/event-hubs, as its documentation shows: the properties of the hub and of a partition, then events from the
// beginning of every partition. It knows the hub's connection string alone, and asks the hub where the events are. The task comes
// as JSON on stdin; each event is printed as a line of JSON.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const { EventHubConsumerClient, earliestEventPosition } = require('@azure/event-hubs');
const { Connection, ReceiverEvents } = require('rhea-promise');

/** The Event Hubs-compatible connection string, from where the hub redirects to. */
async function eventHubs(service) {
  const parts = Object.fromEntries(service.split(';').map((part) => part.split(/=(.*)/s).slice(0, 2)));
  const { HostName: host, SharedAccessKeyName: policy, SharedAccessKey: key } = parts;
  const resource = encodeURIComponent(`${host}/messages/events`);
  const expiry = Math.ceil(Date.now() / 1000) + 3600;
  const hmac = crypto.createHmac('sha256', Buffer.from(key, 'base64')).update(`${resource}\n${expiry}`);
  const signature = encodeURIComponent(hmac.digest('base64'));
  const connection = new Connection({
    transport: 'tls',
    host,
    hostname: host,
    username: `${policy}@sas.root.${host.split('.')[0]}`,
    password: `SharedAccessSignature sr=${resource}&sig=${signature}&se=${expiry}&skn=${policy}`,
    port: 5671,
    reconnect: false,
  });
  await connection.open();
  const receiver = await connection.createReceiver({ source: { address: `amqps://${host}/messages/events/$management` } });
  const { hostname, address } = await new Promise((resolve, reject) => {
    receiver.on(ReceiverEvents.receiverError, ({ receiver: { error } }) => {
      if (error.condition === 'amqp:link:redirect') resolve(error.info);
      else reject(error);
    });
  });
  await connection.close();
  const [, entity] = address.match(/:\d+\/(.*)\/\$management/i);
  return `Endpoint=sb://${hostname}/;EntityPath=${entity};SharedAccessKeyName=${policy};SharedAccessKey=${key}`;
}

async function main() {
  const task = JSON.parse(fs.readFileSync(0, 'utf8'));
  const client = new EventHubConsumerClient('$Default', await eventHubs(task.connection_string));
  const hub = await client.getEventHubProperties();
  const partitions = await Promise.all(hub.partitionIds.map((id) => client.getPartitionProperties(id)));
  const stored = partitions.reduce((sum, { lastEnqueuedSequenceNumber: last, isEmpty }) => sum + (isEmpty ? 0 : last + 1), 0);
  console.log(JSON.stringify({ partitions: hub.partitionIds, stored }));

  let seen = 0;
  await new Promise((resolve, reject) => {
    client.subscribe(
      {
        processEvents: async (events) => {
          for (const event of events) {
            const device = event.systemProperties['iothub-connection-device-id'];
            const body = Buffer.isBuffer(event.body) ? event.body.toString() : event.body;
            const { sequenceNumber: sequence, offset, properties } = event;
            console.log(JSON.stringify({ device, body, sequence, offset, properties, id: event.messageId }));
            seen += 1;
          }
          if (seen >= task.events) resolve();
        },
        processError: async (error) => reject(error),
      },
      { startPosition: earliestEventPosition },
    );
  });
  await client.close();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error.stack ?? error);
    process.exit(1);
  },
);
