// aws-crt's MQTT 5 client, which keeps messages in memory.

import { once } from 'node:events';

import { TOPIC, concurrently, measure, options, require, version } from './common.mjs';

const { mqtt5 } = require('aws-crt');
const given = options();
const client = new mqtt5.Mqtt5Client({
  hostName: given.host,
  port: given.port,
  connectProperties: { clientId: 'bench', keepAliveIntervalSeconds: 60 },
});
const connected = once(client, 'connectionSuccess');
client.start();
await connected;
const payload = Buffer.from(given.body);
await measure(given.messages, version('aws-crt'), () =>
  concurrently(given.messages, given.concurrency, () =>
    client.publish({ topicName: TOPIC, payload, qos: mqtt5.QoS.AtLeastOnce }),
  ),
);
// Its own threads keep the process, even once it is stopped.
process.exit(0);
