import { invalid } from './errors.js';

/**
 * @internal Options as JSON, under the names of the core. Which names there are, and what may be said under them, the core
 * decides. A bigint is written as text, and so is a number that JSON has no form for: it is refused by its name there.
 */
export function toJson(operation: string, options: object | null | undefined, rest?: object): string {
  if (options !== undefined && typeof options !== 'object') {
    throw invalid(operation, 'the options are not an object');
  }
  const named: Record<string, unknown> = { ...rest };
  for (const [name, value] of Object.entries(options ?? {})) {
    if (name === 'signal' || value === undefined) continue;
    if (typeof value === 'function' || typeof value === 'symbol') {
      throw invalid(operation, `option ${name}: a ${typeof value} cannot be an option`);
    }
    if (name.includes('_')) throw invalid(operation, `unknown option ${name}`);
    named[snakeCase(name)] = value;
  }
  return JSON.stringify(named, exact);
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function exact(_name: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
}

/** @internal The text, or an error that names it. */
export function textOf(operation: string, name: string, value: unknown): string {
  if (typeof value !== 'string') throw invalid(operation, `the ${name} is not a string`);
  return value;
}
