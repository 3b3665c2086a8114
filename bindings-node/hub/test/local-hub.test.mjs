// The hub that tests of programs start.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import * as esm from '../index.mjs';
import { LocalHub, findProgram } from '../index.mjs';

const here = dirname(fileURLToPath(import.meta.url));
/** @type {readonly import('../index.mjs').Listener[]} */
const LISTENERS = ['mqtt', 'mqtts', 'amqp', 'amqps', 'http', 'https'];

/** @param {number | undefined} pid */
function alive(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z';
  } catch {
    return false;
  }
}

/** @param {() => boolean} met */
async function until(met) {
  for (const deadline = Date.now() + 30_000; !met(); await sleep(10)) assert.ok(Date.now() < deadline, 'it never came');
}

/** @param {string} address */
function listens(address) {
  const [host = '', port] = address.split(':');
  return new Promise((resolve) => {
    const socket = connect(Number(port), host);
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false)).on('connect', () => socket.destroy());
  });
}

/** @param {import('node:test').TestContext} context */
function temporary(context) {
  const folder = mkdtempSync(join(tmpdir(), 'whimbrel-test-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * @param {string} file
 * @param {string} text
 */
function script(file, text) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `#!/bin/sh\n${text}\n`);
  chmodSync(file, 0o755);
}

test('a hub runs, and closing leaves nothing of it', async () => {
  const hub = await LocalHub.start();
  const { pid, folder } = hub;
  assert.ok(hub.running && alive(pid));
  for (const name of LISTENERS) assert.ok(await listens(hub.address(name)), name);
  assert.match(await hub.createDevice("a'b"), /^HostName=localhost;DeviceId=a'b;SharedAccessKey=.+$/);
  assert.match(hub.serviceConnectionString, /^HostName=localhost;SharedAccessKeyName=iothubowner;/);
  assert.deepEqual(hub.deviceOptions(), { server: `mqtt://${hub.address('mqtt')}` });
  assert.deepEqual(hub.deviceOptions('amqps'), { server: `amqps://${hub.address('amqps')}`, caFile: hub.caFile });
  assert.ok(existsSync(hub.caFile));
  await hub.close();
  assert.ok(!hub.running && hub.pid === undefined && !alive(pid) && !existsSync(dirname(folder)));
  await hub.close();
  await assert.rejects(hub.restart(), /closed/);
});

test('ports and data stay over stop, kill and restart', async (context) => {
  const folder = join(temporary(context), 'hub');
  const hub = await LocalHub.start({ folder });
  await hub.createDevice('d');
  const ways = () => [hub.deviceOptions(), hub.deviceOptions('mqtts'), hub.serviceOptions()];
  const before = ways();
  const pids = new Set([hub.pid]);
  for (const end of [() => hub.stop(), () => hub.kill(), () => Promise.resolve()]) {
    await end();
    await hub.restart();
    assert.deepEqual(ways(), before);
    pids.add(hub.pid);
    await assert.rejects(hub.createDevice('d'), /409/);
  }
  assert.equal(pids.size, 4);
  await Promise.all([hub.stop(), hub.kill(), hub.restart(), hub.kill()]);
  assert.ok(!hub.running && !(await listens(hub.address('mqtt'))));
  await hub.close();
  assert.ok(existsSync(join(folder, 'service.json')), 'a folder that was given is left');
});

test('the hub ends with the process that started it', async (context) => {
  const code = `
    const { LocalHub } = require(${JSON.stringify(dirname(here))});
    LocalHub.start().then((hub) => console.log(JSON.stringify([hub.pid, hub.folder])));
  `;
  await context.test('by itself, though nobody closed the hub', () => {
    const child = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 60_000 });
    assert.equal(child.status, 0, child.stderr);
    const [pid, folder] = JSON.parse(child.stdout);
    assert.ok(!alive(pid) || !existsSync(folder));
    assert.ok(!existsSync(dirname(folder)));
    return until(() => !alive(pid));
  });
  await context.test('by SIGKILL', async () => {
    const child = spawn(process.execPath, ['-e', `${code} setInterval(() => {}, 1000)`], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(child.stdout, 'data');
    const [pid, folder] = JSON.parse(line.toString());
    assert.ok(alive(pid));
    child.kill('SIGKILL');
    await until(() => !alive(pid));
    rmSync(dirname(folder), { recursive: true });
  });
});

test('waiting for the end of a hub keeps the process', () => {
  const code = `
    const { LocalHub } = require(${JSON.stringify(dirname(here))});
    (async () => {
      const hub = await LocalHub.start();
      await hub.restart();
      await hub.kill();
      await hub.restart();
      await hub.close();
      console.log('to the end');
    })();
  `;
  const child = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 60_000 });
  assert.deepEqual([child.status, child.stdout], [0, 'to the end\n'], child.stderr);
});

test('settings are those of the hub', async () => {
  const hub = await LocalHub.start({ settings: { mqtts: 'off', partitions: 2, 'command-count-lock-expiry': true } });
  await hub.restart();
  assert.throws(() => hub.deviceOptions('mqtts'), /mqtts/);
  assert.throws(() => hub.address(/** @type {any} */ ('coap')), /mqtt, mqtts/);
  await hub.close();
  await assert.rejects(LocalHub.start({ settings: { retension: '1d' } }), /retension/);
  await assert.rejects(LocalHub.start({ settings: { memory: true } }), /folder/);
});

test('variables about other hubs do not count', async (context) => {
  const other = join(temporary(context), 'other');
  process.env.WHIMBREL_HUB_MQTT = 'off';
  process.env.WHIMBREL_DATA = other;
  context.after(() => {
    delete process.env.WHIMBREL_HUB_MQTT;
    delete process.env.WHIMBREL_DATA;
  });
  const hub = await LocalHub.start();
  assert.ok(await listens(hub.address('mqtt')));
  await hub.close();
  assert.ok(!existsSync(other));
});

test('where the program is looked for', async (context) => {
  const folder = temporary(context);
  const { WHIMBREL_BINARY: told, PATH: path } = process.env;
  context.after(() => {
    if (told === undefined) delete process.env.WHIMBREL_BINARY;
    else process.env.WHIMBREL_BINARY = told;
    process.env.PATH = path;
  });
  const [first, second] = [join(folder, 'told', 'whimbrel'), join(folder, 'path', 'whimbrel')];
  script(first, 'exit 7');
  script(second, 'exit 8');
  process.env.PATH = dirname(second);
  process.env.WHIMBREL_BINARY = first;
  assert.equal(findProgram(), first);
  await assert.rejects(LocalHub.start(), /ended with 7/);
  process.env.WHIMBREL_BINARY = join(folder, 'nowhere');
  await assert.rejects(LocalHub.start(), /nowhere/);
  delete process.env.WHIMBREL_BINARY;
  const packaged = findProgram();
  if (packaged === second) {
    await assert.rejects(LocalHub.start(), /ended with 8/);
    unlinkSync(second);
    assert.throws(findProgram, /npm install whimbrel-hub/);
  } else {
    assert.match(packaged, /@whimbrel/);
  }
  writeFileSync(join(folder, 'text'), 'no program');
  await assert.rejects(LocalHub.start({ program: join(folder, 'text') }), /cannot be run/);
});

test('a hub that does not get ready is ended', async (context) => {
  const program = join(temporary(context), 'whimbrel');
  script(program, 'echo $$ > "$0.pid"; echo working; exec sleep 600');
  await assert.rejects(LocalHub.start({ program, startTimeoutMs: 1_000 }), /working/);
  assert.ok(!alive(Number(readFileSync(`${program}.pid`, 'utf8'))));
});

test('the command passes arguments, output, exit code and signals on', async (context) => {
  const program = join(temporary(context), 'whimbrel');
  const command = join(dirname(here), 'bin', 'whimbrel-hub.js');
  const version = spawnSync(process.execPath, [command, '--version'], { encoding: 'utf8' });
  assert.match(version.stdout, /^whimbrel \d+\.\d+\.\d+/);
  assert.equal(spawnSync(process.execPath, [command, 'hub', '--no-such-flag']).status, 2);
  script(program, 'trap "echo stopped; exit 9" TERM; echo ready; while :; do sleep 0.05; done');
  const child = spawn(process.execPath, [command], {
    env: { ...process.env, WHIMBREL_BINARY: program },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let printed = '';
  child.stdout.on('data', (part) => {
    if (printed === '') child.kill('SIGTERM');
    printed += part;
  });
  const [code] = await once(child, 'close');
  assert.deepEqual([code, printed], [9, 'ready\nstopped\n']);
});

test('ES modules and CommonJS see the same', () => {
  const cjs = createRequire(import.meta.url)('..');
  assert.deepEqual(Object.keys(cjs).sort(), Object.keys(esm).sort());
  assert.equal(cjs.LocalHub, LocalHub);
});

test('await using closes it', { skip: Symbol.asyncDispose === undefined && 'not in this Node' }, async () => {
  const hub = await LocalHub.start();
  await hub[Symbol.asyncDispose]();
  assert.ok(!hub.running && !existsSync(hub.folder));
});
