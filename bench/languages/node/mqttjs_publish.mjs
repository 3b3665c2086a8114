// mqtt.js, which keeps messages in memory.

import { run } from './mqttjs_common.mjs';

await run(() => ({}));
