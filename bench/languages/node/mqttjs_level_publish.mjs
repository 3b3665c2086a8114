// mqtt.js with mqtt-level-store, which keeps messages on the disk without syncing them.

import { join } from 'node:path';

import { require } from './common.mjs';
import { run } from './mqttjs_common.mjs';

await run((given) => {
  const manager = require('mqtt-level-store')(join(given.outbox, 'level'));
  return { incomingStore: manager.incoming, outgoingStore: manager.outgoing };
}, 'mqtt-level-store');
