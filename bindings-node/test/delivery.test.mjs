// The device client against a hub.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeviceClient, WhimbrelError } from '../dist/index.mjs';
import { folderFor, hubFor, until } from './hub.mjs';
import { MESSAGE } from './options.mjs';

const bytes = (text) => new TextEncoder().encode(text);

async function stage(test, id = 'd1') {
  const hub = await hubFor(test);
  const service = await hub.service();
  const identity = await service.registry.create(id);
  const connectionString = service.registry.connectionString(identity);
  const open = async (options) => {
    const settings = { outbox: folderFor(test), ...hub.deviceOptions, closeDeadlineMs: 1000, ...options };
    const device = await DeviceClient.open(connectionString, settings);
    test.after(() => device.close());
    return device;
  };
  return { hub, service, open };
}

test('messages are delivered, and their receipts say where', async (test) => {
  const { service, open } = await stage(test);
  const events = await service.events({ position: 'beginning' });
  test.after(() => events.close());
  const device = await open();
  const receipt = await device.send(bytes('21.5'), { ...MESSAGE, messageId: 'first' });
  const outcome = await receipt.outcome();
  assert.equal(outcome.kind, 'delivered');
  assert.equal(typeof outcome.partition, 'number');
  assert.equal(typeof outcome.sequence, 'bigint');
  assert.deepEqual(receipt.state(), { state: 'settled', outcome });
  assert.deepEqual(await (await device.receipt('first')).outcome(), outcome);
  const event = await events.next();
  assert.equal(event.deviceId, 'd1');
  assert.deepEqual(event.body, bytes('21.5'));
  assert.ok(event.body instanceof Uint8Array && !Buffer.isBuffer(event.body));
  assert.deepEqual({ partition: event.partition, sequence: event.sequence }, { partition: outcome.partition, sequence: outcome.sequence });
  assert.deepEqual(new Map(Object.entries(event.properties)), new Map(Object.entries(MESSAGE.properties)));
  assert.equal(event.properties.constructor, Object, 'it is an object like any other');
  const { lane, durability, expiresInMs, properties, messageId, creationTime, ...rest } = MESSAGE;
  for (const [name, value] of Object.entries(rest)) assert.equal(event[name], value, name);
  assert.deepEqual(event.creationTime, creationTime);
  assert.equal(event.messageId, 'first');
  assert.ok(Math.abs(event.enqueuedAt - Date.now()) < 600_000);
  assert.equal(JSON.parse(event.authMethod).scope, 'device');
  assert.equal(typeof event.offset, 'string');

  // Empty bodies and zero bytes arrive as they are, and so does what sendMany took.
  const odd = [new Uint8Array(0), new Uint8Array([0, 255, 0]), new Uint8Array(new SharedArrayBuffer(3)).fill(7)];
  const receipts = await device.sendMany(odd);
  for (const receipt of receipts) assert.equal((await receipt.outcome()).kind, 'delivered');
  for (const body of odd) assert.deepEqual(new Uint8Array((await events.next()).body), new Uint8Array(body));
  await device.sendJson({ t: [1, 'ä'] });
  const json = await events.next();
  assert.deepEqual(JSON.parse(new TextDecoder().decode(json.body)), { t: [1, 'ä'] });
  assert.deepEqual([json.contentType, json.contentEncoding], ['application/json', 'utf-8']);
  assert.equal(await device.flush(60_000), 0);
  const { accepted, delivered, queued } = device.account();
  assert.deepEqual([accepted, delivered, queued], [5, 5, 0]);
});

test('many at a time, each with its own outcome', async (test) => {
  const { open } = await stage(test);
  const device = await open({ outboxMaxMessages: 100_000, keptOutcomes: 10_000 });
  const sends = Array.from({ length: 5000 }, (_, index) => device.send(bytes(`${index}`)));
  const outcomes = await Promise.all(sends.map(async (send) => (await send).outcome()));
  const places = new Set(outcomes.map(({ kind, partition, sequence }) => `${kind} ${partition} ${sequence}`));
  assert.equal(places.size, 5000);
});

test('connection states: the present one, then each change, until the end', async (test) => {
  const { open } = await stage(test);
  const device = await open();
  const seen = [];
  for await (const { state } of device.connectionChanges()) {
    seen.push(state);
    if (state === 'connected') void device.close();
  }
  assert.ok(seen.includes('connected') && seen.at(-1) === 'closed', `${seen}`);
  assert.equal(device.connection.state, 'closed');
});

test('commands are received and settled in each way', async (test) => {
  const { service, open } = await stage(test);
  const device = await open();
  const inbox = device.inbox();
  assert.equal(device.inbox(), inbox);
  const options = { messageId: 'c1', properties: { a: 'b' }, contentType: 'text/plain', correlationId: 'cc', userId: 'uu' };
  const tracked = await service.send('d1', bytes('reboot'), options);
  const command = await inbox.next();
  assert.deepEqual(new Uint8Array(command.body), bytes('reboot'));
  assert.deepEqual({ ...command.properties }, { a: 'b' });
  assert.deepEqual([command.messageId, command.correlationId, command.userId, command.contentType], ['c1', 'cc', 'uu', 'text/plain']);
  assert.deepEqual([command.contentEncoding, command.creationTime], [null, null]);
  assert.equal(typeof command.sequence, 'bigint');
  assert.ok(command.enqueuedAt instanceof Date);
  assert.equal(command.deliveryCount, 0);
  await command.complete();
  assert.equal(await tracked.outcome(), 'completed');
  await assert.rejects(command.complete(), { code: 'WHIMBREL_CONFLICT' });
  await assert.rejects(command.abandon(), { code: 'WHIMBREL_CONFLICT' });

  const second = await service.send('d1', bytes('again'));
  const first = await inbox.next();
  await first.abandon();
  const redelivered = await inbox.next();
  assert.equal(redelivered.messageId, first.messageId);
  assert.equal(redelivered.deliveryCount, 1);
  await redelivered.reject();
  assert.equal(await second.outcome(), 'rejected');
});

test('an aborted wait swallows no command', async (test) => {
  const { service, open } = await stage(test);
  const device = await open();
  const inbox = device.inbox();
  const count = 40;
  let aborted = 0;
  const received = [];
  const receive = (async () => {
    while (received.length < count) {
      // Aborted at any moment: also between the news of a command and taking it.
      const controller = new AbortController();
      const round = aborted % 4;
      const waits = [inbox.next({ signal: controller.signal }), inbox.next({ signal: controller.signal })];
      if (round === 0) controller.abort();
      else if (round === 1) setImmediate(() => controller.abort());
      else if (round === 2) setTimeout(() => controller.abort(), 1);
      else void Promise.race(waits).catch(() => {}).then(() => controller.abort());
      if (round === 3) setTimeout(() => controller.abort(), 20);
      for (const settled of await Promise.allSettled(waits)) {
        if (settled.status === 'fulfilled') {
          received.push(settled.value.messageId);
          await settled.value.complete();
        } else {
          assert.equal(settled.reason.name, 'AbortError');
          aborted += 1;
        }
      }
    }
  })();
  const sent = [];
  for (let index = 0; index < count; index += 1) sent.push((await service.send('d1', bytes('x'), { messageId: `c${index}` })).messageId);
  await receive;
  assert.deepEqual(received.sort(), sent.sort());
  assert.ok(aborted > 0);
});

test('an abort stops the waiting for a settlement, not the settlement', async (test) => {
  const { service, open } = await stage(test);
  const device = await open();
  for (const [settle, outcome] of [['complete', 'completed'], ['reject', 'rejected']]) {
    const tracked = await service.send('d1', bytes('x'));
    const command = await device.inbox().next();
    const controller = new AbortController();
    const settling = command[settle]({ signal: controller.signal });
    controller.abort();
    await assert.rejects(settling, { name: 'AbortError' });
    assert.equal(await tracked.outcome(), outcome);
    await assert.rejects(command.complete({ signal: AbortSignal.abort() }), { name: 'AbortError' });
  }
});

test('an iteration over an inbox ends with its client, and leaving it closes nothing', async (test) => {
  const { service, open } = await stage(test);
  const device = await open();
  for (let round = 0; round < 2; round += 1) {
    await service.send('d1', bytes(`${round}`));
    for await (const command of device.inbox()) {
      await command.complete();
      break;
    }
  }
  const iterating = (async () => {
    for await (const command of device.inbox()) assert.fail(`nothing was sent: ${command}`);
    return 'ended';
  })();
  await until('it waits', () => device.connection.state === 'connected');
  await device.close();
  assert.equal(await iterating, 'ended');
  assert.equal(await device.inbox().next(), null);
});

test('wrong credentials are a state, and a module has no commands', async (test) => {
  const { hub, open } = await stage(test);
  const wrong = await DeviceClient.open('HostName=localhost;DeviceId=d1;SharedAccessKey=d3Jvbmc=', {
    outboxInMemory: true,
    ...hub.deviceOptions,
    closeDeadlineMs: 0,
  });
  test.after(() => wrong.close());
  for await (const { state, reason } of wrong.connectionChanges()) {
    if (state !== 'unauthorized') continue;
    assert.equal(typeof reason, 'string');
    break;
  }
  const old = await open({ protocol: 'mqtt3' });
  const { service } = { service: await hub.service() };
  await service.send('d1', bytes('x'), { messageId: 'm' });
  const command = await old.inbox().next();
  assert.equal(command.sequence, null);
  const error = await command.abandon().catch((error) => error);
  assert.ok(error instanceof WhimbrelError && error.code === 'WHIMBREL_UNSUPPORTED', `${error}`);
  await command.complete();
});
