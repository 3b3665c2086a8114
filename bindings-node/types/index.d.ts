/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Durable messages between devices and a back end, at least once, through bad networks and power cuts.
 *
 * @packageDocumentation
 */
export { type Cancel } from './calls.js';
export { type Account, type ConnectionState, type Counters, DeviceClient, type DeviceOptions, type Overflow, type Protocol, } from './device.js';
export { Checkpoints, Event, EventReader, type EventsOptions, FileCheckpoints, HubCheckpoints, MemoryCheckpoints, type Position, } from './events.js';
export { type ErrorCode, type ErrorKind, type Retry, WhimbrelError } from './errors.js';
export { type Feedback, FeedbackBatch, FeedbackReader } from './feedback.js';
export { Command, type Head, Inbox } from './inbox.js';
export { type LogLevel, type LogRecord, setLog } from './log.js';
export { type Durability, type Lane, type Message, type MessageOptions } from './message.js';
export { type DropReason, type Outcome, Receipt, Receipts, type ReceiptState } from './receipt.js';
export { type Authentication, type Condition, type DeviceIdentity, type Identity, type ModuleIdentity, Registry, } from './registry.js';
export { type CommandOptions, type FeedbackWanted, ServiceClient, type ServiceOptions } from './service.js';
export { type CommandOutcome, Tracked } from './tracked.js';
