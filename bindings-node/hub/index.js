'use strict';
const { LocalHub } = require('./lib/local-hub.js');
const { findProgram } = require('./lib/program.js');
// One by one: what imports this as an ES module sees these names.
exports.LocalHub = LocalHub;
exports.findProgram = findProgram;
