// The service client against a hub.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DeviceClient,
  FileCheckpoints,
  HubCheckpoints,
  MemoryCheckpoints,
  ServiceClient,
  WhimbrelError,
} from '../dist/index.mjs';
import { folderFor, hubFor, NOWHERE } from './hub.mjs';
import { COMMAND, EVENTS, SERVICE } from './options.mjs';

const bytes = (text) => new TextEncoder().encode(text);
const text = (body) => new TextDecoder().decode(body);

async function deviceOn(test, hub, service, id) {
  const connectionString = service.registry.connectionString(await service.registry.create(id));
  const device = await DeviceClient.open(connectionString, { outbox: folderFor(test), ...hub.deviceOptions });
  test.after(() => device.close());
  return device;
}

test('options are those of the core', async (test) => {
  const connection = 'HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0';
  const named = (error) => new Set([...error.message.split('expected one of')[1].matchAll(/`(\w+)`/g)].map(([, name]) => name));
  const unknown = await ServiceClient.connect(connection, { '?': 1 }).catch((error) => error);
  assert.equal(unknown.code, 'WHIMBREL_INVALID_ARGUMENT');
  assert.deepEqual(named(unknown), new Set(Object.keys(SERVICE)));
  for (const name of Object.keys(SERVICE)) {
    const connecting = ServiceClient.connect(connection, { [name]: { not: 'this' } });
    await assert.rejects(connecting, { code: 'WHIMBREL_INVALID_ARGUMENT', message: new RegExp(`option ${name}\\b`) });
  }
  await assert.rejects(ServiceClient.connect(NOWHERE), { code: 'WHIMBREL_INVALID_ARGUMENT' });
  await assert.rejects(ServiceClient.connect(7), { code: 'WHIMBREL_INVALID_ARGUMENT' });
  const { caFile, caPem, proxy, ...usable } = SERVICE;
  const service = await ServiceClient.connect(connection, usable);
  test.after(() => service.close());
  const events = await service.events({ '?': 1 }).catch((error) => error);
  assert.deepEqual(named(events), new Set(Object.keys(EVENTS).map((name) => (name === 'position' ? 'from' : name))));
  for (const wrong of [{ position: 'middle' }, { position: { time: 5 } }, { position: { sequence: -1 } }, { partitions: ['a'] }, { ownershipRenewMs: 1 }, { checkpoints: {} }, { group: '\ud800' }]) {
    await assert.rejects(service.events(wrong), { code: 'WHIMBREL_INVALID_ARGUMENT' }, JSON.stringify(wrong));
  }
  for (const wrong of [{ feedback: 'some' }, { expiresInMs: -1 }, { expiresInMs: NaN }, { messageId: '\ud800' }, { '?': 1 }, { lane: 'fast' }]) {
    await assert.rejects(service.send('d', bytes('x'), wrong), { code: 'WHIMBREL_INVALID_ARGUMENT' }, JSON.stringify(wrong));
  }
  for (const wrong of ['\ud800', 'no spaces', '', 7]) {
    await assert.rejects(service.send(wrong, bytes('x')), { code: 'WHIMBREL_INVALID_ARGUMENT' });
    assert.throws(() => service.tracked(wrong, 'm'), { code: 'WHIMBREL_INVALID_ARGUMENT' });
  }
  await assert.rejects(service.send('d', 'text'), { code: 'WHIMBREL_INVALID_ARGUMENT' });
});

test('commands are followed to their end, also by another client, and feedback is kept', async (test) => {
  const hub = await hubFor(test);
  const service = await hub.service();
  const device = await deviceOn(test, hub, service, 'd1');
  const tracked = await service.send('d1', bytes('reboot'), COMMAND);
  assert.deepEqual([tracked.deviceId, tracked.messageId], ['d1', 'm-1']);
  const command = await device.inbox().next();
  assert.equal(command.properties.room, 'attic');
  const aborted = new AbortController();
  const waiting = tracked.outcome({ signal: aborted.signal });
  aborted.abort();
  await assert.rejects(waiting, { name: 'AbortError' });
  await command.complete();
  assert.equal(await tracked.outcome(), 'completed');
  const other = await hub.service();
  assert.equal(await other.tracked('d1', 'm-1').outcome(), 'completed');
  await assert.rejects(other.tracked('d1', 'never sent').outcome(), { code: 'WHIMBREL_NOT_FOUND' });

  const feedback = service.feedback();
  const stopped = new AbortController();
  const batch = await feedback.next();
  assert.equal(batch.records.length, 1);
  const [record] = batch.records;
  assert.deepEqual([record.messageId, record.deviceId, record.outcome], ['m-1', 'd1', 'completed']);
  assert.ok(record.endedAt instanceof Date && batch.enqueuedAt instanceof Date && record.generation.length > 0);
  await batch.abandon();
  await assert.rejects(batch.complete(), { code: 'WHIMBREL_CONFLICT' });
  const again = await feedback.next();
  assert.equal(again.records[0].messageId, 'm-1');
  await again.complete();
  const none = feedback.next({ signal: stopped.signal });
  stopped.abort(new Error('enough'));
  await assert.rejects(none, { message: 'enough' });
  await feedback.close();
  await feedback.close();
  assert.equal(await feedback.next(), null);

  await assert.rejects(service.send('nobody', bytes('x')), { code: 'WHIMBREL_NOT_FOUND' });
  const json = await service.sendJson('d1', { a: 1 });
  const received = await device.inbox().next();
  assert.deepEqual([text(received.body), received.contentType], ['{"a":1}', 'application/json']);
  await received.reject();
  assert.equal(await json.outcome(), 'rejected');
});

test('events are read from each position, and go on behind each kind of checkpoint', async (test) => {
  const hub = await hubFor(test);
  const service = await hub.service();
  const device = await deviceOn(test, hub, service, 'd1');
  const receipts = await device.sendMany(Array.from({ length: 10 }, (_, index) => bytes(`${index}`)));
  const outcomes = [];
  for (const receipt of receipts) outcomes.push(await receipt.outcome());
  const { partition, sequence } = outcomes[4];
  const first = async (options) => {
    const reader = await service.events(options);
    try {
      assert.ok(reader.name.length > 0);
      return await reader.next();
    } finally {
      await reader.close();
    }
  };
  const beginning = await first({ position: 'beginning', partitions: [partition] });
  assert.equal(text(beginning.body), '0');
  assert.equal(text((await first({ position: { sequence }, partitions: [partition] })).body), '4');
  assert.equal(text((await first({ position: { sequence: Number(sequence) }, partitions: [partition] })).body), '4');
  const fifth = await first({ position: { sequence }, partitions: [partition] });
  const at = await first({ position: { offset: fifth.offset }, partitions: [partition] });
  assert.ok(['4', '5'].includes(text(at.body)));
  assert.equal(text((await first({ position: { time: new Date(0) }, partitions: [partition] })).body), '0');
  const end = await service.events({ position: 'end', prefetch: 5 });
  await device.send(bytes('the end'));
  assert.equal(text((await end.next()).body), 'the end');
  await end.close();
  await assert.rejects(beginning.checkpoint(), { code: 'WHIMBREL_UNSUPPORTED' });

  for (const checkpoints of [new MemoryCheckpoints(), new HubCheckpoints(), new FileCheckpoints(folderFor(test))]) {
    const reader = await service.events({ checkpoints });
    let read = 0;
    for await (const event of reader) {
      read += 1;
      if (read < 4) continue;
      await event.checkpoint();
      break;
    }
    await reader.close();
    const next = await service.events({ checkpoints });
    assert.equal(text((await next.next()).body), '4', checkpoints.constructor.name);
    const stopped = new AbortController();
    // Which of them get the six events that are left is not said.
    let left = 6;
    const wait = async () => {
      const event = await next.next({ signal: stopped.signal });
      left -= 1;
      if (left === 0) stopped.abort();
      return text(event.body);
    };
    const ends = await Promise.allSettled(Array.from({ length: 20 }, wait));
    const rest = ends.flatMap(({ value }) => value ?? []).sort();
    assert.deepEqual(rest, ['5', '6', '7', '8', '9', 'the end'].sort());
    assert.equal(ends.filter(({ status }) => status === 'fulfilled').length, 6);
    await next.close();
    await next.close();
    assert.equal(await next.next(), null);
  }
  assert.throws(() => new FileCheckpoints(7), { code: 'WHIMBREL_INVALID_ARGUMENT' });
  await assert.rejects(service.events({ partitions: [99] }), { code: 'WHIMBREL_NOT_FOUND' });
  await assert.rejects(service.events({ signal: AbortSignal.abort() }), { name: 'AbortError' });
});

test('the registry: devices, modules, queries', async (test) => {
  const hub = await hubFor(test);
  const service = await hub.service();
  const { registry } = service;
  const created = await registry.create('d1');
  assert.equal(created.deviceId, 'd1');
  assert.equal(created.status, 'enabled');
  assert.ok(registry.connectionString(created).includes('DeviceId=d1'));
  await assert.rejects(registry.create('d1'), { code: 'WHIMBREL_CONFLICT' });
  const identity = { deviceId: 'd2', status: 'disabled', statusReason: 'retired', authentication: { type: 'certificateAuthority' } };
  const second = await registry.create(identity);
  assert.deepEqual([second.status, second.statusReason, second.authentication.type], ['disabled', 'retired', 'certificateAuthority']);
  assert.ok(registry.connectionString(second).includes('x509=true'));
  const updated = await registry.update({ ...second, status: 'enabled', statusReason: null });
  assert.equal(updated.status, 'enabled');
  await assert.rejects(registry.update(second), { code: 'WHIMBREL_CONFLICT' });
  assert.equal((await registry.get('d2')).etag, updated.etag);
  assert.deepEqual((await registry.list()).map(({ deviceId }) => deviceId).sort(), ['d1', 'd2']);
  assert.equal((await registry.list({ limit: 1 })).length, 1);
  const found = [];
  for await (const document of registry.query('SELECT * FROM devices', { pageSize: 1 })) found.push(document.deviceId);
  assert.deepEqual(found.sort(), ['d1', 'd2']);

  const module = await registry.createModule({ deviceId: 'd1', moduleId: 'm1', managedBy: 'us' });
  assert.deepEqual([module.moduleId, module.managedBy], ['m1', 'us']);
  assert.ok(registry.connectionString(module).includes('ModuleId=m1'));
  const changed = await registry.updateModule({ ...module, managedBy: 'them' });
  assert.equal((await registry.getModule('d1', 'm1')).managedBy, 'them');
  assert.deepEqual((await registry.modules('d1')).map(({ moduleId }) => moduleId), ['m1']);
  await assert.rejects(registry.deleteModule('d1', 'm1', { etag: module.etag }), { code: 'WHIMBREL_CONFLICT' });
  await registry.deleteModule('d1', 'm1', { etag: changed.etag });
  await assert.rejects(registry.getModule('d1', 'm1'), { code: 'WHIMBREL_NOT_FOUND' });

  await service.send('d1', bytes('x'));
  await service.send('d1', bytes('y'));
  assert.equal(await registry.purgeCommands('d1'), 2);
  await assert.rejects(registry.delete('d2', { etag: second.etag }), { code: 'WHIMBREL_CONFLICT' });
  await registry.delete('d2', { etag: updated.etag });
  await registry.delete('d1');
  await assert.rejects(registry.get('d1'), { code: 'WHIMBREL_NOT_FOUND' });
  for (const wrong of [7, null, { deviceId: 7 }, {}, '\ud800', []]) {
    await assert.rejects(registry.create(wrong), { code: 'WHIMBREL_INVALID_ARGUMENT' }, JSON.stringify(wrong));
  }
  await assert.rejects(registry.list({ limit: -1 }), { code: 'WHIMBREL_INVALID_ARGUMENT' });
  await assert.rejects(registry.get('d1', { signal: AbortSignal.abort() }), { name: 'AbortError' });
  assert.equal(registry.connectionString({ deviceId: 'd', authentication: { type: 'none' } }), null);
  assert.throws(() => registry.connectionString(undefined), { code: 'WHIMBREL_INVALID_ARGUMENT' });
});

test('closing ends what waits', async (test) => {
  const hub = await hubFor(test);
  const service = await hub.service();
  const device = await service.registry.create('d1');
  assert.ok(device.etag);
  const tracked = await service.send('d1', bytes('x'));
  const events = await service.events();
  const feedback = service.feedback();
  const waits = [tracked.outcome(), events.next(), feedback.next()];
  const ended = Promise.allSettled(waits);
  await service.close();
  await service.close();
  const [outcome, event, batch] = await ended;
  assert.equal(outcome.reason?.code, 'WHIMBREL_CLOSED');
  assert.deepEqual([event.value, batch.value], [null, null]);
  await assert.rejects(service.send('d1', bytes('x')), (error) => error instanceof WhimbrelError && error.kind === 'CLOSED');
  assert.throws(() => service.feedback(), { code: 'WHIMBREL_CLOSED' });
  assert.throws(() => service.tracked('d1', 'm'), { code: 'WHIMBREL_CLOSED' });
});
