// whimbrel: one batch after the other.

import { measure, options, version } from './common.mjs';
import { LONG, close, open } from './whimbrel_common.mjs';

const given = options();
const device = await open(given);
await measure(given.messages, version('whimbrel'), async () => {
  for (let left = given.messages; left > 0; left -= given.batch) {
    await device.sendMany(Array(Math.min(given.batch, left)).fill(given.body));
  }
  await device.flush(LONG);
});
await close(device, given.messages);
