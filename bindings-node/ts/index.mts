// One implementation and one state, however the package is loaded.
export * from './index.js';
