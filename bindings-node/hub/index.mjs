import hub from './index.js';

export const { LocalHub, findProgram } = hub;
