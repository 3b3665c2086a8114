// The device client without a hub.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { DeviceClient, WhimbrelError } from '../dist/index.mjs';
import { folderFor, NOWHERE, OFFLINE } from './hub.mjs';
import { DEVICE, MESSAGE } from './options.mjs';

const { native } = createRequire(import.meta.url)('../dist/native.js');
const bytes = (text) => new TextEncoder().encode(text);

async function offline(test, options) {
  const device = await DeviceClient.open(NOWHERE, { outbox: folderFor(test), ...OFFLINE, ...options });
  test.after(() => device.close());
  return device;
}

function refused(kind, text) {
  return (error) => {
    assert.ok(error instanceof WhimbrelError, `${error?.stack}`);
    assert.equal(error.kind, kind, error.message);
    assert.equal(error.code, `WHIMBREL_${kind}`);
    assert.match(error.message, text ?? /./);
    return true;
  };
}

test('the table of errors is that of the core', async () => {
  const text = createRequire(import.meta.url)('node:fs').readFileSync(new URL('../ts/errors.ts', import.meta.url), 'utf8');
  const start = text.indexOf('export type ErrorKind');
  const union = text.slice(start, text.indexOf(';', start));
  const named = [...union.matchAll(/'([A-Z_]+)'/g)].map(([, name]) => name);
  const table = JSON.parse(native.errorKinds());
  assert.deepEqual(named, table.map(([name]) => name));
  const retries = [...text.matchAll(/export type Retry = (.*);/g)][0][1].match(/'[^']+'|"[^"]+"/g).map((word) => word.slice(1, -1));
  assert.deepEqual(new Set(retries), new Set(table.map(([, , retry]) => retry)));
});

test('a message is kept over a restart, and found by its id', async (test) => {
  const outbox = folderFor(test);
  const first = await DeviceClient.open(NOWHERE, { outbox, ...OFFLINE });
  const receipt = await first.send(bytes('21.5'));
  const chosen = await first.send(bytes('22'), MESSAGE);
  const many = await first.sendMany([bytes('a'), { body: bytes('b'), messageId: 'in-many' }, { body: bytes('c'), lane: 'alert' }]);
  assert.equal(chosen.messageId, 'm-1');
  assert.deepEqual(receipt.state(), { state: 'queued' });
  assert.equal(many.length, 3);
  assert.equal(many.at(-2).messageId, 'in-many');
  assert.equal(many.at(3), undefined);
  assert.equal(new Set([...many].map(({ messageId }) => messageId)).size, 3);
  const account = { accepted: 5, delivered: 0, expired: 0, dropped: 0, rejected: 0, queued: 5 };
  assert.deepEqual(first.account(), account);
  const counters = await first.counters();
  assert.deepEqual(counters.account, account);
  assert.equal(counters.queuedAlerts, 2);
  assert.ok(counters.queuedBytes > 0 && counters.writtenBytes > 0 && counters.oldestAgeMs >= 0);
  assert.equal(await first.flush(0), 5);
  const waiting = assert.rejects(receipt.outcome(), refused('CLOSED'));
  await first.close();
  await first.close();
  await waiting;
  assert.deepEqual(first.connection, { state: 'closed', reason: null });
  await assert.rejects(first.send(bytes('late')), refused('CLOSED'));
  await assert.rejects(first.receipt('m-1'), refused('CLOSED'));
  assert.deepEqual(receipt.state(), { state: 'queued' });

  const second = await DeviceClient.open(NOWHERE, { outbox, ...OFFLINE });
  test.after(() => second.close());
  for (const id of [receipt.messageId, 'm-1', 'in-many']) {
    const found = await second.receipt(id);
    assert.equal(found.messageId, id);
    assert.deepEqual(found.state(), { state: 'queued' });
  }
  assert.equal(await second.receipt('nobody'), null);
  assert.deepEqual(second.account(), account);
});

test('one folder belongs to one client', async (test) => {
  const outbox = folderFor(test);
  const device = await DeviceClient.open(NOWHERE, { outbox, ...OFFLINE });
  test.after(() => device.close());
  await assert.rejects(DeviceClient.open(NOWHERE, { outbox, ...OFFLINE }), (error) => {
    return refused('IN_USE')(error) && error.retry === 'later' && error.number === 202 && error.operation !== '';
  });
});

test('messages end in outcomes: expired, dropped, refused', async (test) => {
  const device = await offline(test, { overflow: 'drop-newest', outboxMaxMessages: 2 });
  const short = await device.send(bytes('x'), { expiresInMs: 1 });
  assert.deepEqual(await short.outcome(), { kind: 'expired' });
  assert.deepEqual(short.state(), { state: 'settled', outcome: { kind: 'expired' } });
  const kept = await device.sendMany([bytes('1'), bytes('2'), { body: bytes('3'), messageId: 'three' }]);
  const dropped = { kind: 'dropped', reason: 'no-room' };
  assert.deepEqual(await kept.at(2).outcome(), dropped);
  assert.equal(kept.at(2).messageId, 'three');
  const turned = await device.send(bytes('4'));
  assert.deepEqual(turned.state(), { state: 'settled', outcome: dropped });
  assert.deepEqual(await turned.outcome(), dropped);
  assert.deepEqual((await (await device.receipt(turned.messageId)).outcome()), dropped);
  assert.deepEqual((await device.counters()).droppedByReason, { 'no-room': 2 });

  const strict = await offline(test, { outboxMaxMessages: 1 });
  await strict.send(bytes('1'));
  await assert.rejects(strict.send(bytes('2')), refused('OUTBOX_FULL'));
  await assert.rejects(strict.sendMany([bytes('2'), bytes('3')]), refused('OUTBOX_FULL'));
  assert.equal((await strict.counters()).refused, 3);
});

test('bodies are what they are at the time of the call, whatever buffer they are in', async (test) => {
  const device = await offline(test);
  const buffer = new ArrayBuffer(64);
  const view = new Uint8Array(buffer, 8, 16);
  const shared = new Uint8Array(new SharedArrayBuffer(16));
  const detached = new Uint8Array(8);
  structuredClone(detached, { transfer: [detached.buffer] });
  await device.send(new Uint8Array(0));
  const sending = device.send(view);
  view.fill(1);
  await sending;
  await device.send(shared);
  await device.send(Buffer.from('pooled').subarray(2));
  await device.send(new Uint8Array(262_144 - 64));
  if (typeof ArrayBuffer.prototype.resize === 'function') {
    const resizable = new ArrayBuffer(16, { maxByteLength: 64 });
    const tracking = new Uint8Array(resizable);
    resizable.resize(48);
    const resized = device.send(tracking);
    resizable.resize(0);
    await resized;
    await device.send(tracking);
  }
  await assert.rejects(device.send(detached), refused('INVALID_ARGUMENT', /transferred/));
  await assert.rejects(device.sendMany([detached]), refused('INVALID_ARGUMENT', /transferred/));
  await assert.rejects(device.send(new Uint8Array(262_145)), refused('PAYLOAD_TOO_LARGE', /262145/));
  for (const body of ['text', null, undefined, 7, {}, [1, 2], new ArrayBuffer(1), new Float64Array(1), new DataView(new ArrayBuffer(1))]) {
    await assert.rejects(device.send(body), refused('INVALID_ARGUMENT', /Uint8Array/));
    await assert.rejects(device.sendMany([body]), refused('INVALID_ARGUMENT', /Uint8Array|object/));
  }
  await assert.rejects(device.sendMany([bytes('fine'), new Uint8Array(300_000)]), (error) => {
    return refused('PAYLOAD_TOO_LARGE')(error) && error.details.index === '1';
  });
});

test('hostile texts are refused by name, and nothing is replaced', async (test) => {
  const device = await offline(test);
  const accepted = device.account().accepted;
  const halves = ['\ud83d', 'a\udc26b', '\udc26\ud83d'];
  const calls = [
    (text) => device.send(bytes('x'), { messageId: text }),
    (text) => device.send(bytes('x'), { correlationId: text }),
    (text) => device.send(bytes('x'), { contentType: text }),
    (text) => device.send(bytes('x'), { lane: text }),
    (text) => device.send(bytes('x'), { properties: { [text]: 'x' } }),
    (text) => device.send(bytes('x'), { properties: { x: text } }),
    (text) => device.sendMany([{ body: bytes('x'), properties: { x: text } }]),
    (text) => device.sendMany([{ body: bytes('x'), userId: text }]),
    (text) => device.receipt(text),
    (text) => DeviceClient.open(text, { outboxInMemory: true }),
    (text) => DeviceClient.open(NOWHERE, { outbox: text }),
  ];
  for (const call of calls) {
    for (const half of halves) await assert.rejects(call(half), refused('INVALID_ARGUMENT'), `${call}`);
    // As the name of a property, all but a symbol is made a text by JavaScript itself.
    if (`${call}`.includes('[text]')) continue;
    for (const wrong of [7, {}, [], true, Symbol('s')]) await assert.rejects(call(wrong), refused('INVALID_ARGUMENT'), `${call}`);
  }
  assert.equal(device.account().accepted, accepted);
  const whole = await device.send(bytes('x'), { messageId: '🐦 whole', properties: { 'na\u0000me': 'nul\u0000' } }).catch((error) => error);
  assert.ok(whole.messageId === '🐦 whole' || whole.kind === 'INVALID_ARGUMENT', `${whole}`);
});

test('hostile numbers are refused by name', async (test) => {
  const device = await offline(test);
  const wrong = [NaN, Infinity, -Infinity, -1, 0.5, -1n, 2n ** 64n, 2 ** 64, '5', {}];
  for (const time of wrong) {
    await assert.rejects(device.send(bytes('x'), { expiresInMs: time }), refused('INVALID_ARGUMENT'), `${time}`);
    if (typeof time !== 'string') {
      await assert.rejects(device.sendMany([{ body: bytes('x'), expiresInMs: time }]), refused('INVALID_ARGUMENT'), `${time}`);
    }
    await assert.rejects(device.flush(time), refused('INVALID_ARGUMENT'), `${time}`);
    if (time !== '5') {
      const opening = DeviceClient.open(NOWHERE, { outboxInMemory: true, ...OFFLINE, keepAliveMs: time });
      await assert.rejects(opening, refused('INVALID_ARGUMENT', /keepAliveMs/), `${time}`);
    }
  }
  await assert.rejects(device.send(bytes('x'), { expiresInMs: 0 }), refused('INVALID_ARGUMENT'));
  await assert.rejects(device.send(bytes('x'), { creationTime: new Date(NaN) }), refused('INVALID_ARGUMENT'));
  await assert.rejects(device.send(bytes('x'), { creationTime: 5 }), refused('INVALID_ARGUMENT', /Date/));
  for (const time of [1, 2 ** 53, 2n ** 53n + 1n, 2n ** 64n - 1n]) {
    const receipt = await device.send(bytes('x'), { expiresInMs: time }).catch((error) => error);
    if (receipt instanceof WhimbrelError) refused('INVALID_ARGUMENT')(receipt);
  }
  await device.send(bytes('x'), { creationTime: new Date(-1500) });
  assert.equal(await device.flush(0n), device.account().queued);
  const bound = await offline(test, { outboxMaxBytes: 2n ** 53n + 1n, window: 1 });
  await bound.send(bytes('x'));
  await assert.rejects(DeviceClient.open(NOWHERE, { outboxInMemory: true, window: 70_000 }), refused('INVALID_ARGUMENT', /window/));
});

test('options are those of the core, and unknown ones are refused by name', async () => {
  const unknown = await DeviceClient.open(NOWHERE, { '?': 1 }).catch((error) => error);
  refused('INVALID_ARGUMENT')(unknown);
  const names = [...unknown.message.split('expected one of')[1].matchAll(/`(\w+)`/g)].map(([, name]) => name);
  assert.deepEqual(new Set(names), new Set(Object.keys(DEVICE)));
  for (const name of ['outbox_in_memory', 'windw']) {
    await assert.rejects(DeviceClient.open(NOWHERE, { [name]: true }), refused('INVALID_ARGUMENT', new RegExp(name)));
  }
  await assert.rejects(DeviceClient.open(NOWHERE, { proxy: () => {} }), refused('INVALID_ARGUMENT', /proxy/));
  await assert.rejects(DeviceClient.open(NOWHERE, 'outbox'), refused('INVALID_ARGUMENT'));
  // Each one reaches the core: with a value of the wrong type it is refused under its name.
  for (const name of Object.keys(DEVICE)) {
    const opening = DeviceClient.open(NOWHERE, { [name]: { not: 'this' } });
    await assert.rejects(opening, refused('INVALID_ARGUMENT', new RegExp(`option ${name}\\b`)));
  }
});

test('options of messages are those of the core', async (test) => {
  const device = await offline(test);
  const unknown = await device.send(bytes('x'), { '?': 1 }).catch((error) => error);
  const names = [...unknown.message.split('expected one of')[1].matchAll(/`(\w+)`/g)].map(([, name]) => name);
  const ours = Object.keys(MESSAGE).map((name) => (name === 'creationTime' ? 'creationTimeMs' : name));
  assert.deepEqual(new Set(names), new Set(ours));
  await device.send(bytes('x'), MESSAGE);
  await device.sendMany([{ body: bytes('x'), ...MESSAGE }]);
  const nothing = Object.fromEntries(Object.keys(MESSAGE).map((name) => [name, null]));
  for (const none of [null, undefined, {}, nothing, { lane: undefined, signal: undefined }]) await device.send(bytes('x'), none);
  await device.sendMany([{ body: bytes('x'), ...nothing }]);
  await assert.rejects(device.send(bytes('x'), { lane: 'fast' }), refused('INVALID_ARGUMENT', /telemetry or alert/));
  await assert.rejects(device.send(bytes('x'), { properties: { a: 1 } }), refused('INVALID_ARGUMENT', /"a"/));
});

test('values are sent as JSON, if they are some', async (test) => {
  const device = await offline(test);
  await device.sendJson({ t: 21.5, half: '\ud800' }, { contentType: 'application/vnd.x+json' });
  await device.sendJson(null);
  const circle = {};
  circle.circle = circle;
  for (const value of [undefined, () => {}, Symbol('s'), circle, 1n]) {
    await assert.rejects(device.sendJson(value), refused('INVALID_ARGUMENT', /JSON/));
  }
});

test('an abort before, during and after each call that waits', async (test) => {
  const device = await offline(test);
  const inbox = device.inbox();
  const queued = await device.send(bytes('x'), { messageId: 'queued' });
  const changes = () => {
    const iterator = (options) => device.connectionChanges(options)[Symbol.asyncIterator]();
    return async (options) => {
      const states = iterator(options);
      for (;;) await states.next().then(({ done }) => assert.ok(!done));
    };
  };
  const calls = {
    open: (options) => DeviceClient.open(NOWHERE, { outboxInMemory: true, ...OFFLINE, ...options }).then((device) => device.close()),
    send: (options) => device.send(bytes('x'), options),
    sendJson: (options) => device.sendJson(1, options),
    sendMany: (options) => device.sendMany([bytes('x')], options),
    receipt: (options) => device.receipt('queued', options),
    outcome: (options) => queued.outcome(options),
    counters: (options) => device.counters(options),
    flush: (options) => device.flush(60_000, options),
    next: (options) => inbox.next(options),
    changes: changes(),
  };
  const endless = new Set(['outcome', 'flush', 'next', 'changes']);
  for (const [name, call] of Object.entries(calls)) {
    const reason = new Error(`stop ${name}`);
    await assert.rejects(call({ signal: AbortSignal.abort(reason) }), reason, name);
    await assert.rejects(call({ signal: AbortSignal.abort() }), { name: 'AbortError' }, name);
    const during = new AbortController();
    const calling = call({ signal: during.signal });
    during.abort(reason);
    await assert.rejects(calling, reason, name);
    if (endless.has(name)) {
      const later = new AbortController();
      const waiting = call({ signal: later.signal });
      setTimeout(() => later.abort(reason), 5);
      await assert.rejects(waiting, reason, name);
      continue;
    }
    const after = new AbortController();
    await call({ signal: after.signal });
    after.abort(reason);
  }
  // What was aborted is in the outbox all the same, and everything works as before.
  const { accepted } = device.account();
  const controller = new AbortController();
  const sends = Array.from({ length: 100 }, () => device.send(bytes('x'), { signal: controller.signal }));
  controller.abort();
  for (const send of sends) await assert.rejects(send, { name: 'AbortError' });
  assert.equal(device.account().accepted, accepted + 100);
  await device.send(bytes('x'), { signal: new AbortController().signal });
});

test('sends resolve in order, and each with its own receipt', async (test) => {
  const device = await offline(test, { outboxMaxMessages: 100_000 });
  const order = [];
  const sends = Array.from({ length: 5000 }, (_, index) => {
    return device.send(bytes(`${index}`)).then((receipt) => {
      order.push(index);
      return receipt.messageId;
    });
  });
  const ids = await Promise.all(sends);
  assert.deepEqual(order, order.map((_, index) => index));
  const numbers = ids.map((id) => Number(id.split('.').at(-1)));
  assert.deepEqual(numbers, numbers.map((_, index) => numbers[0] + index));
});

test('a panic is an error with its text, and the process goes on', async () => {
  const { attempt, call, environment } = createRequire(import.meta.url)('../dist/calls.js');
  const text = (error) => refused('INTERNAL')(error) && error.details.panic === 'oh no';
  assert.throws(() => attempt(() => native.panicNow('oh no')), text);
  await assert.rejects(call({}, undefined, (token) => environment.panicLater(token, 'oh no'), () => {}), text);
});
