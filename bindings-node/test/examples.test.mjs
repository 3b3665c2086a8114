// The programs in examples/node run to a good end; each judges itself.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, readdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { PACKAGE, project, run } from './consumer.mjs';

const examples = join(dirname(PACKAGE), 'examples', 'node');
// Those of every language, and one of our own.
const names = [
  'alerts_first.mjs',
  'back_end.mjs',
  'receive_commands.mjs',
  'send_telemetry.mjs',
  'survive_outage.mjs',
  'telemetry.cjs',
];

test('the list of examples is complete', () => {
  assert.deepEqual(readdirSync(examples).filter((name) => /\.[cm]js$/.test(name)).sort(), names);
});

for (const name of names) {
  test(`${name} runs`, (test) => {
    const { stdout, stderr } = run(test, name, readFileSync(join(examples, name), 'utf8'));
    assert.ok(stdout.length > 0);
    assert.equal(stderr, '');
  });
}

test('their types are right', (test) => {
  const folder = project(test);
  for (const name of [...names, 'tsconfig.json']) copyFileSync(join(examples, name), join(folder, name));
  symlinkSync(join(PACKAGE, 'node_modules', '@types'), join(folder, 'node_modules', '@types'), 'junction');
  const tsc = join(PACKAGE, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status, stdout, stderr } = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8' });
  assert.equal(status, 0, stdout + stderr);
});
