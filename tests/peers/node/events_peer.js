// A reader with @azure/event-hubs, as its documentation shows: the properties of the hub and of a partition, then events from the
// beginning of every partition. The task comes as JSON on stdin; each event is printed as a line of JSON.
'use strict';

const fs = require('node:fs');
const { EventHubConsumerClient, earliestEventPosition } = require('@azure/event-hubs');

async function main() {
  const task = JSON.parse(fs.readFileSync(0, 'utf8'));
  const client = new EventHubConsumerClient('$Default', task.connection_string);
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
