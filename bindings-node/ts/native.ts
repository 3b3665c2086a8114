import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type * as Native from '../native.js';

/** @internal The platforms there are packages for. */
export const PLATFORMS = [
  'darwin-arm64',
  'darwin-x64',
  'linux-arm64-gnu',
  'linux-arm64-musl',
  'linux-x64-gnu',
  'linux-x64-musl',
  'win32-x64-msvc',
] as const;

/** @internal The native half: built here, or the package for this platform. */
export const native: typeof Native = load();

function load(): typeof Native {
  const built = join(__dirname, '..', 'whimbrel.node');
  if (existsSync(built)) return require(built);
  const name = `@whimbrel/${platform()}`;
  try {
    return require(name);
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException | undefined)?.code === 'MODULE_NOT_FOUND';
    throw new Error(
      missing
        ? `whimbrel has no native half here: the package ${name} is missing. It is an optional dependency of whimbrel; install ` +
          `without --omit=optional, on the platform the program runs on (there are packages for ${PLATFORMS.join(', ')})`
        : `whimbrel could not load its native half from the package ${name}`,
      { cause },
    );
  }
}

/** @internal This platform, as the packages are named. */
export function platform(): string {
  const { platform, arch } = process;
  if (platform === 'linux') return `linux-${arch}-${usesGlibc() ? 'gnu' : 'musl'}`;
  return platform === 'win32' ? `win32-${arch}-msvc` : `${platform}-${arch}`;
}

function usesGlibc(): boolean {
  // Without this the report looks up the names of all connections.
  const report = process.report as (NodeJS.ProcessReport & { excludeNetwork?: boolean }) | undefined;
  if (!report) return true;
  const before = report.excludeNetwork;
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } };
  if (before !== undefined) report.excludeNetwork = before;
  return header?.glibcVersionRuntime !== undefined;
}
