/** @internal Makes `await using` close objects of this class, where the version of Node knows it. */
export function disposable(type: { prototype: { close(): Promise<void> } }): void {
  if (Symbol.asyncDispose === undefined) return;
  Object.defineProperty(type.prototype, Symbol.asyncDispose, {
    value(this: { close(): Promise<void> }) {
      return this.close();
    },
    configurable: true,
    writable: true,
  });
}
