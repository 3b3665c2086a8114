// A device program with azure-iot-device for Node, as its documentation shows: sends messages, receives commands and settles
// each as its body asks for. The task comes as JSON on stdin; each command it got is printed as a line of JSON.
'use strict';

const fs = require('node:fs');
const { Client, Message } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Http } = require('azure-iot-device-http');

const TRANSPORTS = { mqtt: Mqtt, 'mqtt-ws': MqttWs, amqp: Amqp, 'amqp-ws': AmqpWs, http: Http };

async function main() {
  const task = JSON.parse(fs.readFileSync(0, 'utf8'));
  const client = Client.fromConnectionString(task.connection_string, TRANSPORTS[task.transport]);
  const ca = fs.readFileSync(task.ca, 'utf8');
  // Over HTTP its promise never resolves.
  const set = client.setOptions({ ca, http: { receivePolicy: { interval: 1 } } });
  if (task.transport !== 'http') await set;

  let settled = 0;
  let finish;
  const finished = new Promise((resolve) => (finish = resolve));
  const settle = async (message) => {
    const body = message.data.toString();
    const how = body.startsWith('reject') ? 'reject' : body.startsWith('abandon') ? 'abandon' : 'complete';
    await client[how](message);
    const properties = message.properties.propertyList.map(({ key, value }) => [key, value]);
    console.log(JSON.stringify({ body, how, id: message.messageId, properties }));
    settled += 1;
    if (settled === task.commands) finish();
  };
  client.on('error', fail);
  await client.open();
  for (const { body, id, properties } of task.messages) {
    const message = new Message(body);
    if (id) message.messageId = id;
    for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
    await client.sendEvent(message);
  }
  if (task.commands > 0) {
    // One after the other: the AMQP library under this client gives settlements of one moment the outcome of the first.
    let before = Promise.resolve();
    client.on('message', (message) => {
      before = before.then(() => settle(message)).then(() => new Promise(setImmediate)).catch(fail);
    });
    // Polling over HTTP keeps no process alive.
    const awake = setInterval(() => {}, 1000);
    await finished;
    clearInterval(awake);
  }
  await client.close();
}

function fail(error) {
  console.error(error.stack ?? error);
  process.exit(1);
}

main().then(() => process.exit(0), fail);
