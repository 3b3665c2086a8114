// A project that has the packages installed, for programs that are to run as they stand.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder `bindings-node`. */
export const PACKAGE = dirname(dirname(fileURLToPath(import.meta.url)));

const root = dirname(PACKAGE);
const built = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'debug', 'whimbrel');

/** A folder with both packages in `node_modules`; it goes with this test. */
export function project(test) {
  const folder = mkdtempSync(join(tmpdir(), 'whimbrel-project-'));
  test.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  mkdirSync(join(folder, 'node_modules'));
  // Junctions: on Windows these need no rights.
  symlinkSync(PACKAGE, join(folder, 'node_modules', 'whimbrel'), 'junction');
  symlinkSync(join(PACKAGE, 'hub'), join(folder, 'node_modules', 'whimbrel-hub'), 'junction');
  return folder;
}

/** Runs a program in a project to its end; gives what it printed, and throws when it fails. */
export function run(test, name, text) {
  const folder = project(test);
  writeFileSync(join(folder, name), text);
  const env = { WHIMBREL_BINARY: built, ...process.env };
  const options = { cwd: folder, env, encoding: 'utf8', timeout: 120_000, stdio: ['ignore', 'pipe', 'pipe'] };
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [name], options);
  if (status !== 0) throw new Error(`${name} ended with ${status ?? signal}\n${stdout}${stderr}`);
  return { stdout, stderr };
}
