#!/usr/bin/env node
// `npx whimbrel-hub …` is `whimbrel …`: a process of its own, with this one's terminal, arguments, signals and exit code.
'use strict';
const { spawn } = require('node:child_process');
const os = require('node:os');
const { findProgram } = require('../lib/program.js');

/** @type {string} */
let program;
try {
  program = findProgram();
} catch (error) {
  console.error(`error: ${/** @type {Error} */ (error).message}`);
  process.exit(1);
}
const child = spawn(program, process.argv.slice(2), { stdio: 'inherit' });
// From a terminal the command gets SIGINT by itself, as everything in the foreground does; a second one would mean "at once".
process.on('SIGINT', () => {
  if (!process.stdin.isTTY) child.kill('SIGINT');
});
for (const signal of /** @type {const} */ (['SIGTERM', 'SIGHUP'])) process.on(signal, () => child.kill(signal));
child.on('error', (error) => {
  console.error(`error: ${program} cannot be run: ${error.message}`);
  process.exit(1);
});
child.on('exit', (code, signal) => {
  process.exit(code ?? 128 + (os.constants.signals[signal ?? 'SIGTERM'] ?? 0));
});
