// Publishes with mqtt.js, whichever store it has: as many at a time as the window allows, each with its callback.

import { TOPIC, measure, options, require, version } from './common.mjs';

const { connect } = require('mqtt');

export async function run(stores, name = 'mqtt') {
  const given = options();
  const body = Buffer.from(given.body);
  const client = connect(`mqtt://${given.host}:${given.port}`, { clientId: 'bench', clean: true, ...stores(given) });
  await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject));
  await measure(given.messages, version(name), () => {
    return new Promise((resolve, reject) => {
      let sent = 0;
      let acknowledged = 0;
      const done = (error) => {
        if (error) reject(error);
        acknowledged += 1;
        if (acknowledged === given.messages) resolve();
        else if (sent < given.messages) next();
      };
      const next = () => {
        sent += 1;
        client.publish(TOPIC, body, { qos: 1 }, done);
      };
      for (let at = Math.min(given.concurrency, given.messages); at > 0; at -= 1) next();
    });
  });
  await client.endAsync();
}
