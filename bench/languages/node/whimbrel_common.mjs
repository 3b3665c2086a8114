// Opens the device client, the outbox always on the disk.

import { require } from './common.mjs';

const { DeviceClient } = require('whimbrel');
const CONNECTION_STRING = 'HostName=bench.example;DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0';

/** An open client that is connected. */
export async function open(given) {
  if (!given.outbox) throw new Error('--outbox is missing: the folder for the outbox');
  const device = await DeviceClient.open(CONNECTION_STRING, {
    outbox: given.outbox,
    server: `mqtt://${given.host}:${given.port}`,
  });
  for await (const { state } of device.connectionChanges()) if (state === 'connected') break;
  return device;
}

/** Closes it; every message has been delivered, or the run does not count. */
export async function close(device, messages) {
  const account = device.account();
  await device.close();
  if (Number(account.delivered) !== messages) {
    throw new Error(`not everything was delivered: ${account.delivered} of ${messages}`);
  }
}

/** Limit for the last acknowledgement, in milliseconds. */
export const LONG = 120_000;
