// whimbrel: many sends at a time.

import { concurrently, measure, options, version } from './common.mjs';
import { LONG, close, open } from './whimbrel_common.mjs';

const given = options();
const device = await open(given);
await measure(given.messages, version('whimbrel'), async () => {
  await concurrently(given.messages, given.concurrency, () => device.send(given.body));
  await device.flush(LONG);
});
await close(device, given.messages);
