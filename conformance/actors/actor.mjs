// The Node actor: does with `whimbrel` what the driver says; see ../README.md.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import * as whimbrel from '../../bindings-node/dist/index.mjs';

const { DeviceClient, ServiceClient, WhimbrelError } = whimbrel;
const require = createRequire(import.meta.url);
const objects = new Map();
const running = new Map();

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
const bytes = (text) => new Uint8Array(Buffer.from(text, 'base64'));

function revived(value) {
  if (Array.isArray(value)) return value.map(revived);
  if (value === null || typeof value !== 'object') return value;
  if ('$int' in value) return BigInt(value.$int);
  if ('$utf16' in value) return String.fromCharCode(...value.$utf16);
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, revived(item)]));
}

/** What goes into a line. */
function plain(value) {
  if (typeof value === 'bigint') {
    return value <= Number.MAX_SAFE_INTEGER && value >= Number.MIN_SAFE_INTEGER ? Number(value) : { $int: `${value}` };
  }
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (value instanceof Date) return value.getTime();
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
}

/** Names and values as this language has them. */
function options(args, ...without) {
  const told = {};
  for (const [name, value] of Object.entries(args)) {
    if (without.includes(name)) continue;
    if (name === 'creation_time_ms') told.creationTime = new Date(value);
    else told[camel(name)] = value;
  }
  return told;
}

const bodyOf = (args) => ('text' in args ? args.text : bytes(args.body));
const message = (args) => ({ body: bodyOf(args), ...options(args, 'body', 'text') });
const ended = ({ kind, ...rest }) => ({ outcome: kind, ...plain(rest) });

function received(thing) {
  const names = ['body', 'properties', 'messageId', 'correlationId', 'userId', 'contentType', 'contentEncoding', 'sequence'];
  const also = ['deliveryCount', 'deviceId', 'moduleId', 'generation', 'authMethod', 'source', 'partition', 'offset'];
  const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const answer = { creation_time_ms: plain(thing.creationTime), enqueued_at_ms: plain(thing.enqueuedAt) };
  for (const name of [...names, ...also]) if (name in thing) answer[snake(name)] = plain(thing[name]);
  return answer;
}

function position(given) {
  return given?.time_ms === undefined ? given : { time: new Date(given.time_ms) };
}

async function perform(call, on, keep, args, signal) {
  const one = objects.get(on);
  const [kind, name] = call.split('.');
  const kept = (thing, answer = {}) => {
    objects.set(keep, thing);
    return answer;
  };
  switch (call) {
    case 'hello':
      return { language: 'Node' };
    case 'device.open':
      return kept(await DeviceClient.open(args.connection_string, { ...options(args.options), signal }));
    case 'device.send': {
      const receipt = await one.send(bodyOf(args), { ...options(args, 'body', 'text'), signal });
      return kept(receipt, { message_id: receipt.messageId });
    }
    case 'device.send_json': {
      const receipt = await one.sendJson(args.value, { ...options(args, 'value'), signal });
      return kept(receipt, { message_id: receipt.messageId });
    }
    case 'device.send_many': {
      const receipts = [...(await one.sendMany(args.messages.map(message), { signal }))];
      receipts.forEach((receipt, at) => objects.set(`${keep}.${at}`, receipt));
      return { message_ids: receipts.map((receipt) => receipt.messageId) };
    }
    case 'device.receipt': {
      const receipt = await one.receipt(args.message_id, { signal });
      return receipt === null ? { found: false } : kept(receipt, { found: true });
    }
    case 'device.inbox':
      return kept(one.inbox());
    case 'device.account':
      return one.account();
    case 'device.counters': {
      const { queuedAlerts, droppedByReason, account, refused, sent } = await one.counters({ signal });
      return { queued_alerts: queuedAlerts, dropped_by_reason: droppedByReason, account, refused, sent };
    }
    case 'device.connection':
      return one.connection;
    case 'device.states':
      return kept(one.connectionChanges());
    case 'states.next': {
      const { done, value } = await one.next();
      return done ? { end: true } : value;
    }
    case 'device.flush':
      return { left: await one.flush(args.deadline_ms, { signal }) };
    case 'receipt.state': {
      const { state, outcome } = one.state();
      return { state, ...(outcome && ended(outcome)) };
    }
    case 'receipt.outcome':
      return ended(await one.outcome({ signal }));
    case 'inbox.next':
    case 'events.next':
    case 'feedback.next': {
      const item = await one.next({ signal });
      if (item === null) return { end: true };
      if (kind !== 'feedback') return kept(item, received(item));
      const records = item.records.map(({ messageId, deviceId, outcome }) => ({ message_id: messageId, device_id: deviceId, outcome }));
      return kept(item, { records });
    }
    case 'service.connect':
      return kept(await ServiceClient.connect(args.connection_string, { ...options(args.options), signal }));
    case 'service.send': {
      const tracked = await one.send(args.device, bodyOf(args), { ...options(args, 'device', 'body', 'text'), signal });
      return kept(tracked, { message_id: tracked.messageId });
    }
    case 'service.tracked':
      return kept(one.tracked(args.device, args.message_id));
    case 'tracked.outcome':
      return { outcome: await one.outcome({ signal }) };
    case 'service.feedback':
      return kept(one.feedback());
    case 'checkpoints.file':
      return kept(new whimbrel.FileCheckpoints(args.folder));
    case 'checkpoints.hub':
      return kept(new whimbrel.HubCheckpoints());
    case 'checkpoints.memory':
      return kept(new whimbrel.MemoryCheckpoints());
    case 'service.events': {
      const told = options(args);
      if ('position' in told) told.position = position(told.position);
      if ('checkpoints' in told) told.checkpoints = objects.get(told.checkpoints);
      const reader = await one.events({ ...told, signal });
      return kept(reader, { name: reader.name });
    }
    case 'command.complete':
    case 'command.abandon':
    case 'command.reject':
    case 'batch.complete':
    case 'batch.abandon':
    case 'event.checkpoint':
      await one[name]({ signal });
      return {};
    case 'device.close':
    case 'feedback.close':
    case 'events.close':
    case 'service.close':
      await one.close();
      return {};
    case 'panic': {
      const { call, environment } = require('../../bindings-node/dist/calls.js');
      return call({}, { signal }, (token) => environment.panicLater(token, 'a panic of a test'), () => ({}));
    }
  }
  if (kind === 'registry') return registry(one.registry, camel(name), args, signal);
  throw new Error(`there is no call ${call}`);
}

async function registry(of, name, { identity, device, module, etag, limit, query, page_size }, signal) {
  switch (name) {
    case 'create':
    case 'update':
    case 'createModule':
    case 'updateModule':
      return { identity: await of[name](identity, { signal }) };
    case 'get':
      return { identity: await of.get(device, { signal }) };
    case 'getModule':
      return { identity: await of.getModule(device, module, { signal }) };
    case 'delete':
      await of.delete(device, { etag, signal });
      return {};
    case 'deleteModule':
      await of.deleteModule(device, module, { etag, signal });
      return {};
    case 'list':
      return { identities: await of.list({ limit, signal }) };
    case 'modules':
      return { identities: await of.modules(device, { signal }) };
    case 'query': {
      const items = [];
      for await (const item of of.query(query, { pageSize: page_size, signal })) items.push(item);
      return { items };
    }
    case 'purgeCommands':
      return { count: await of.purgeCommands(device, { signal }) };
    case 'connectionString':
      return { connection_string: of.connectionString(identity) };
  }
  throw new Error(`there is no call registry.${name}`);
}

function failure(error) {
  if (error instanceof WhimbrelError) {
    const { kind, number, retry, operation, message, details } = error;
    return { kind, code: number, retry, operation, message, details };
  }
  return { kind: error?.name ?? typeof error, message: `${error?.stack ?? error}` };
}

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const { id, call, on, as: keep, args } = JSON.parse(line);
  if (call === 'cancel') {
    running.get(args.of)?.abort();
    say({ id, ok: {} });
    return;
  }
  const stop = new AbortController();
  running.set(id, stop);
  perform(call, on, keep, revived(args ?? {}), stop.signal)
    .then((ok) => say({ id, ok }))
    .catch((error) => {
      const cancelled = stop.signal.aborted && error === stop.signal.reason;
      say(cancelled ? { id, cancelled } : { id, error: failure(error) });
    })
    .finally(() => running.delete(id));
});
// Clients that are still open would keep the process; the driver is gone.
lines.on('close', () => process.exit(0));
