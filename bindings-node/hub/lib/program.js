'use strict';
const fs = require('node:fs');
const path = require('node:path');

/** The platforms there are packages for. */
const PLATFORMS = ['linux-x64-gnu'];

/**
 * The command: the variable WHIMBREL_BINARY, else the package for this platform, else in PATH.
 *
 * @returns {string}
 */
function findProgram() {
  const told = process.env.WHIMBREL_BINARY;
  if (told) {
    if (!isFile(told)) throw new Error(`WHIMBREL_BINARY is ${told}, and there is no such file`);
    return path.resolve(told);
  }
  const found = packaged() ?? inPath();
  if (found !== undefined) return found;
  throw new Error(
    `the whimbrel command is not here: npm install whimbrel-hub, without --omit=optional (there are packages for ` +
      `${PLATFORMS.join(', ')}), or say where it is in WHIMBREL_BINARY`,
  );
}

const NAME = process.platform === 'win32' ? 'whimbrel.exe' : 'whimbrel';

/** @returns {string | undefined} */
function packaged() {
  try {
    return require.resolve(`@whimbrel/hub-${platform()}/${NAME}`);
  } catch {
    return undefined;
  }
}

/** @returns {string | undefined} */
function inPath() {
  const folders = (process.env.PATH ?? '').split(path.delimiter).filter(Boolean);
  return folders.map((folder) => path.join(folder, NAME)).find(isFile);
}

/** @returns {string} */
function platform() {
  const { platform, arch } = process;
  if (platform === 'linux') return `linux-${arch}-${usesGlibc() ? 'gnu' : 'musl'}`;
  return platform === 'win32' ? `win32-${arch}-msvc` : `${platform}-${arch}`;
}

/** @returns {boolean} */
function usesGlibc() {
  const report = /** @type {(NodeJS.ProcessReport & { excludeNetwork?: boolean }) | undefined} */ (process.report);
  if (report === undefined) return true;
  // Without this the report looks up the names of all connections.
  const before = report.excludeNetwork;
  report.excludeNetwork = true;
  const { header } = /** @type {{ header?: { glibcVersionRuntime?: string } }} */ (report.getReport());
  if (before !== undefined) report.excludeNetwork = before;
  return header?.glibcVersionRuntime !== undefined;
}

/** @param {string} file */
function isFile(file) {
  return fs.statSync(file, { throwIfNoEntry: false })?.isFile() ?? false;
}

module.exports = { findProgram };
