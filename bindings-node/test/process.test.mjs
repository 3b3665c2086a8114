// What the package does to its process: ending, threads, modules, memory, the log, the event loop.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import * as esm from '../dist/index.mjs';
import { folderFor, NOWHERE, OFFLINE, until } from './hub.mjs';

const require = createRequire(import.meta.url);
const { DeviceClient } = esm;
const index = new URL('../dist/index.mjs', import.meta.url).href;
const bytes = (text) => new TextEncoder().encode(text);

/** Runs a program in a process of its own; what it printed, and how it ended. */
async function run(program, ...options) {
  const head = `import { DeviceClient, ServiceClient, setLog } from ${JSON.stringify(index)};
    const open = (options) => DeviceClient.open(${JSON.stringify(NOWHERE)}, { ...${JSON.stringify(OFFLINE)}, outboxInMemory: true, ...options });
    const bytes = (text) => new TextEncoder().encode(text);\n`;
  const child = spawn(process.execPath, [...options, '--input-type=module', '-e', head + program], { stdio: 'pipe' });
  const said = { out: '', err: '' };
  child.stdout.on('data', (text) => (said.out += text));
  child.stderr.on('data', (text) => (said.err += text));
  // Only a process that does not end comes to this.
  const limit = setTimeout(() => child.kill('SIGKILL'), 60_000);
  const [code, signal] = await new Promise((resolve) => child.once('close', (...ended) => resolve(ended)));
  clearTimeout(limit);
  return { code, signal, ...said };
}

test('a process whose clients are closed ends by itself', async () => {
  const ended = await run(`
    const clients = await Promise.all([open(), open(), ServiceClient.connect('HostName=h;SharedAccessKeyName=a;SharedAccessKey=c2VjcmV0')]);
    const receipt = await clients[0].send(bytes('x'));
    receipt.outcome().catch(({ code }) => console.log(code));
    clients[0].inbox().next().then((command) => console.log(command));
    process.on('exit', () => console.log('exit'));
    for (const client of clients) await client.close();
    console.log('closed');
  `);
  assert.deepEqual([ended.code, ended.err], [0, '']);
  assert.deepEqual(ended.out.trim().split('\n').sort(), ['WHIMBREL_CLOSED', 'closed', 'exit', 'null']);
});

test('loading the package keeps nothing alive, and neither does a log', async () => {
  assert.deepEqual(await run(''), { code: 0, signal: null, out: '', err: '' });
  assert.equal((await run('setLog(() => {});')).code, 0);
  assert.equal((await run(`open({ windw: 1 }).catch(({ code }) => console.log(code));`)).out.trim(), 'WHIMBREL_INVALID_ARGUMENT');
});

test('an open client keeps its process, also one that cannot be reached any more', async () => {
  const ended = await run(`
    process.on('exit', () => console.log('ended'));
    await (async () => { const client = await open(); await client.send(bytes('x')); })();
    process.on('warning', ({ code, message }) => console.log(code, message.includes('DeviceClient')));
    const looking = setInterval(() => globalThis.gc(), 5);
    process.once('warning', () => {
      clearInterval(looking);
      // Still here, with nothing but the client: not long after this the process would have ended by itself.
      let turns = 0;
      const turn = () => (turns++ < 50 ? setImmediate(turn).unref() : undefined);
      turn();
      process.stdin.resume();
      process.stdin.unref?.();
      new Promise((resolve) => setTimeout(resolve, 50).unref()).then(() => { console.log('still here'); process.exit(7); });
    });
  `, '--expose-gc');
  assert.equal(ended.code, 7, ended.err);
  assert.deepEqual(ended.out.trim().split('\n'), ['WHIMBREL_UNCLOSED true', 'still here', 'ended']);
});

test('memory of messages, receipts and clients is given back', async () => {
  const ended = await run(`
    const client = await open({ overflow: 'drop-oldest', outboxMaxMessages: 10 });
    const round = async () => {
      for (let index = 0; index < 60; index += 1) {
        await Promise.all(Array.from({ length: 50 }, async () => (await client.send(new Uint8Array(4096))).state()));
      }
      globalThis.gc();
      return process.memoryUsage().rss;
    };
    for (let index = 0; index < 3; index += 1) await round();
    const before = await round();
    for (let index = 0; index < 4; index += 1) await round();
    // 60 MB went through meanwhile.
    console.log((await round()) - before < 30e6);
    for (let index = 0; index < 50; index += 1) await (await open()).close();
    await client.close();
  `, '--expose-gc');
  assert.deepEqual([ended.code, ended.out.trim(), ended.err], [0, 'true', '']);
});

test('ESM and CommonJS are one package', () => {
  const cjs = require('../dist/index.js');
  const ours = (module) => Object.keys(module).filter((name) => !['default', 'module.exports', '__esModule'].includes(name)).sort();
  assert.deepEqual(ours(cjs), ours(esm));
  for (const name of ours(cjs)) assert.equal(esm[name], cjs[name], name);
  const manifest = require('../package.json');
  assert.equal(require('../dist/native.js').native.version(), manifest.version);
});

test('worker threads each have their clients, and may be ended at any time', async (test) => {
  const program = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { DeviceClient } = require(workerData.cjs);
    (async () => {
      const device = await DeviceClient.open(workerData.connection, { ...workerData.options, outboxInMemory: true });
      const receipts = await Promise.all(Array.from({ length: 500 }, () => device.send(new Uint8Array(100))));
      parentPort.postMessage(new Set(receipts.map(({ messageId }) => messageId)).size);
      if (workerData.ends) return device.close();
      device.inbox().next();
      receipts[0].outcome();
      for (;;) await device.send(new Uint8Array(1)).catch(() => {});
    })();
  `;
  const start = (ends) => {
    const workerData = { cjs: require.resolve('../dist/index.js'), connection: NOWHERE, options: OFFLINE, ends };
    const worker = new Worker(program, { eval: true, workerData });
    const ended = new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
    return { worker, ended, heard: new Promise((resolve) => worker.once('message', resolve)) };
  };
  const device = await DeviceClient.open(NOWHERE, { ...OFFLINE, outboxInMemory: true });
  test.after(() => device.close());
  for (let round = 0; round < 3; round += 1) {
    const workers = [true, false, true, false].map(start);
    for (const { heard } of workers) assert.equal(await heard, 500);
    await Promise.all(Array.from({ length: 100 }, () => device.send(bytes('main'))));
    for (const [place, { worker, ended }] of workers.entries()) {
      if (place % 2 === 1) await worker.terminate();
      assert.equal(await ended, place % 2 === 1 ? 1 : 0);
    }
  }
  assert.equal(device.account().queued, 300);
});

test('a client of a worker that was ended gives its outbox free', async (test) => {
  const outbox = folderFor(test);
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     const { DeviceClient } = require(workerData.cjs);
     DeviceClient.open(workerData.connection, workerData.options).then(async (device) => {
       globalThis.device = device;
       await device.send(new Uint8Array(1));
       parentPort.postMessage('sent');
     });`,
    { eval: true, workerData: { cjs: require.resolve('../dist/index.js'), connection: NOWHERE, options: { outbox, ...OFFLINE } } },
  );
  await new Promise((resolve) => worker.once('message', resolve));
  await worker.terminate();
  const device = await until('the outbox is free', () => DeviceClient.open(NOWHERE, { outbox, ...OFFLINE }).catch(({ code }) => {
    assert.equal(code, 'WHIMBREL_IN_USE');
  }));
  assert.equal(device.account().queued, 1);
  await device.close();
});

test('the log goes to the function set last, and what it throws harms nobody', async () => {
  const ended = await run(`
    const lines = [];
    setLog((record) => lines.push(record), { level: 'debug' });
    await (await open()).close();
    while (lines.length === 0) await new Promise(setImmediate);
    const [{ level, target, message }] = lines;
    console.log(Object.keys(lines[0]).sort().join(), ['error', 'warn', 'info', 'debug'].includes(level), target.startsWith('whimbrel.'), message.length > 0);
    for (const wrong of ['loud', 7, '\\ud800']) try { setLog(() => {}, { level: wrong }); console.log('taken'); } catch ({ code }) { console.log(code); }
    const warned = new Promise((resolve) => process.once('warning', resolve));
    setLog(() => { throw new Error('no'); });
    await (await open()).close();
    console.log((await warned).code);
    setLog(null);
    const before = lines.length;
    await (await open()).close();
    console.log(lines.length === before);
  `, '--no-warnings');
  assert.deepEqual(ended.out.trim().split('\n'), [
    'level,message,target true true true',
    ...Array(3).fill('WHIMBREL_INVALID_ARGUMENT'),
    'WHIMBREL_LOG',
    'true',
  ]);
  assert.equal(ended.code, 0, ended.err);
});

test('nothing is printed unless somebody asks for it', async () => {
  const ended = await run(`const client = await open(); await client.send(bytes('x')); client.send('no').catch(() => {}); await client.close();`);
  assert.deepEqual(ended, { code: 0, signal: null, out: '', err: '' });
});

test('timers and immediates have their turn while very much is under way', async (test) => {
  const device = await DeviceClient.open(NOWHERE, { ...OFFLINE, outbox: folderFor(test), outboxMaxMessages: 200_000 });
  test.after(() => device.close());
  const count = 50_000;
  const sends = [];
  for (let index = 0; index < count; index += 1) sends.push(device.send(bytes('x')));
  // Results come in slices, and between two of them everybody else has a turn.
  let resolved = 0;
  let longest = 0;
  let last = 0;
  let turns = 0;
  let all = false;
  const look = () => {
    longest = Math.max(longest, resolved - last);
    last = resolved;
    turns += 1;
    if (!all) setImmediate(look);
  };
  setImmediate(look);
  await Promise.all(sends.map((send) => send.then(() => (resolved += 1))));
  all = true;
  look();
  assert.ok(longest <= 4 * 512, `${longest} results without a turn for others`);
  assert.ok(turns >= count / (4 * 512));
});

test('what looks at the disk does so beside the event loop', async (test) => {
  const outbox = folderFor(test);
  const first = await DeviceClient.open(NOWHERE, { ...OFFLINE, outbox, outboxMaxMessages: 200_000, durability: 'memory' });
  for (let round = 0; round < 20; round += 1) {
    await first.sendMany(Array.from({ length: 1000 }, (_, index) => ({ body: new Uint8Array(100), messageId: `m${round}-${index}` })));
  }
  await first.close();
  // Many times, one after the other: while they are under way the event loop goes round, which it would not if they held it up.
  const turnsOf = async (work, times = 50) => {
    let turns = 0;
    let done = false;
    const turn = () => {
      turns += 1;
      if (!done) setImmediate(turn);
    };
    setImmediate(turn);
    let result;
    for (let time = 0; time < times; time += 1) result = await work();
    done = true;
    assert.ok(turns >= 1, `${work}`);
    return result;
  };
  const device = await turnsOf(() => DeviceClient.open(NOWHERE, { ...OFFLINE, outbox, outboxMaxMessages: 200_000 }), 1);
  test.after(() => device.close());
  assert.equal((await turnsOf(() => device.counters())).account.queued, 20_000);
  assert.equal((await turnsOf(() => device.receipt('m19-999'), 5)).messageId, 'm19-999');
  assert.equal(await turnsOf(() => device.receipt('not there'), 5), null);
  assert.equal(await turnsOf(() => device.flush(1)), 20_000);
});

test('objects can be closed by "await using"', async (test) => {
  const device = await DeviceClient.open(NOWHERE, { ...OFFLINE, outboxInMemory: true });
  if (Symbol.asyncDispose === undefined) return test.skip('this version of Node has no Symbol.asyncDispose');
  await device[Symbol.asyncDispose]();
  assert.equal(device.connection.state, 'closed');
});

test('the loader says which package is missing', () => {
  const { platform } = require('../dist/native.js');
  const text = readFileSync(new URL('../dist/native.js', import.meta.url), 'utf8');
  assert.match(platform(), /^[a-z0-9]+-[a-z0-9]+(-[a-z]+)?$/);
  const module = { exports: {} };
  const noFiles = (name) => {
    if (name === 'node:fs') return { existsSync: () => false };
    if (name.startsWith('node:')) return require(name);
    throw Object.assign(new Error(`Cannot find module '${name}'`), { code: 'MODULE_NOT_FOUND' });
  };
  const load = () => new Function('require', 'module', 'exports', '__dirname', text)(noFiles, module, module.exports, '/nowhere/dist');
  assert.throws(load, (error) => error.message.includes(`@whimbrel/${platform()}`) && error.cause.code === 'MODULE_NOT_FOUND');
});
