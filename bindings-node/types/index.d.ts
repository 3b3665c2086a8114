/**
 * Durable messages between devices and a back end, at least once, through bad networks and power cuts.
 *
 * @packageDocumentation
 */
export { type Cancel } from './calls.js';
export { type Account, type ConnectionState, type Counters, DeviceClient, type DeviceOptions, type Overflow, type Protocol, } from './device.js';
export { type ErrorCode, type ErrorKind, type Retry, WhimbrelError } from './errors.js';
export { Command, type Head, Inbox } from './inbox.js';
export { type LogLevel, type LogRecord, setLog } from './log.js';
export { type Durability, type Lane, type Message, type MessageOptions } from './message.js';
export { type DropReason, type Outcome, Receipt, Receipts, type ReceiptState } from './receipt.js';
