// CommonJS: the same packages by require.
'use strict';
const { DeviceClient, WhimbrelError } = require('whimbrel');
const { LocalHub } = require('whimbrel-hub');

async function main() {
  const hub = await LocalHub.start();
  const device = await DeviceClient.open(await hub.createDevice('thermostat-1'), {
    outboxInMemory: true,
    ...hub.deviceOptions(),
  });
  const receipt = await device.send(Buffer.from('21.5'), { contentType: 'text/plain' });
  const outcome = await receipt.outcome();
  if (outcome.kind !== 'delivered') throw new Error(`it ended as ${outcome.kind}`);
  console.log(`stored in partition ${outcome.partition} as number ${outcome.sequence}`);
  await device.close();

  // What goes wrong has a code, the same in every language.
  const error = await device.send(Buffer.from('late')).catch((reason) => reason);
  if (!(error instanceof WhimbrelError) || error.code !== 'WHIMBREL_CLOSED') throw error;
  console.log(`${error.code}: ${error.message}`);
  await hub.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
