// Every option there is, with a value that can be used: the types say whether it is complete, and a test whether the core knows
// the same ones.

/** @type {Required<import('../types/index.js').DeviceOptions>} */
export const DEVICE = {
  outbox: 'outbox',
  outboxInMemory: false,
  overflow: 'drop-oldest',
  durability: 'interval',
  outboxMaxBytes: 1n << 53n,
  outboxMaxMessages: 1000,
  outboxMaxAgeMs: 60_000,
  syncIntervalMs: 50,
  keptOutcomes: 10,
  server: 'mqtt://127.0.0.1:9',
  websocket: false,
  proxy: 'http://127.0.0.1:9',
  caFile: 'ca.pem',
  caPem: 'none',
  clientCertificate: 'chain.pem',
  clientKey: 'key.pem',
  clientCertificatePem: 'none',
  clientKeyPem: 'none',
  allowUnencrypted: true,
  protocol: 'mqtt5',
  keepAliveMs: 30_000,
  connectTimeoutMs: 5000,
  pollIntervalMs: 5000,
  window: 10,
  inboxWindow: 10,
  backoffMinMs: 10,
  backoffMaxMs: 1000n,
  closeDeadlineMs: 0,
  tokenLifetimeMs: 3_600_000,
};

/** @type {Required<import('../types/index.js').ServiceOptions>} */
export const SERVICE = {
  eventsConnectionString: 'Endpoint=sb://hub.example/;SharedAccessKeyName=a;SharedAccessKey=c2VjcmV0;EntityPath=events',
  server: 'amqp://127.0.0.1:9',
  httpServer: 'http://127.0.0.1:9',
  websocket: false,
  proxy: 'http://127.0.0.1:9',
  caFile: 'ca.pem',
  caPem: 'none',
  allowUnencrypted: true,
  connectTimeoutMs: 5000,
  sendTimeoutMs: 5000,
  backoffMinMs: 10,
  backoffMaxMs: 1000,
  tokenLifetimeMs: 3_600_000,
  recentOutcomes: 10,
};

/** @type {Required<import('../types/index.js').MessageOptions>} */
export const MESSAGE = {
  lane: 'alert',
  properties: { room: 'attic', ['__proto__']: 'a name like any other', 'naïve 🐦': '' },
  messageId: 'm-1',
  correlationId: 'c-1',
  userId: 'u-1',
  contentType: 'text/plain',
  contentEncoding: 'utf-8',
  creationTime: new Date(1_700_000_000_123),
  messageSchema: 'schema',
  outputName: 'output',
  interfaceId: 'interface',
  component: 'component',
  expiresInMs: 3_600_000n,
  durability: 'on-disk',
};

/** @type {Required<Omit<import('../types/index.js').EventsOptions, 'checkpoints'>>} */
export const EVENTS = {
  group: '$Default',
  position: 'end',
  partitions: [0],
  prefetch: 10,
  ownershipRenewMs: 1000,
  ownershipLastsMs: 5000n,
};

/** @type {Required<import('../types/index.js').CommandOptions>} */
export const COMMAND = {
  expiresInMs: 60_000n,
  feedback: 'full',
  properties: { room: 'attic' },
  messageId: 'm-1',
  correlationId: 'c-1',
  userId: 'u-1',
  contentType: 'text/plain',
  contentEncoding: 'utf-8',
};
