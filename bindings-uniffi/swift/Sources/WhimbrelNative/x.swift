import Foundation
public final class CancelToken: @unchecked Sendable { public init() {}; public func cancel() {} }
public enum Lane: Sendable { case telemetry, alert }
public enum Durability: Sendable { case onDisk, interval, memory }
public enum Overflow: Sendable { case reject, dropOldest, dropNewest }
public enum `Protocol`: Sendable { case auto, mqtt3, mqtt5, amqp, http }
public struct DeviceOptions: Sendable { public init(outbox: String? = nil, outboxInMemory: Bool = false, overflow: Overflow? = nil, durability: Durability? = nil, outboxMaxBytes: UInt64? = nil, outboxMaxMessages: UInt64? = nil, outboxMaxAgeMs: UInt64? = nil, syncIntervalMs: UInt64? = nil, keptOutcomes: UInt64? = nil, server: String? = nil, websocket: Bool = false, proxy: String? = nil, caFile: String? = nil, caPem: String? = nil, clientCertificate: String? = nil, clientKey: String? = nil, clientCertificatePem: String? = nil, clientKeyPem: String? = nil, allowUnencrypted: Bool = false, `protocol`: `Protocol`? = nil, keepAliveMs: UInt64? = nil, connectTimeoutMs: UInt64? = nil, pollIntervalMs: UInt64? = nil, window: UInt16? = nil, inboxWindow: UInt16? = nil, backoffMinMs: UInt64? = nil, backoffMaxMs: UInt64? = nil, closeDeadlineMs: UInt64? = nil, tokenLifetimeMs: UInt64? = nil) {} }
public struct Property: Sendable { public let name: String, value: String; public init(name: String, value: String) { self.name = name; self.value = value } }
public struct Draft: Sendable { public init(lane: Lane? = nil, properties: [Property] = [], messageId: String? = nil, correlationId: String? = nil, userId: String? = nil, contentType: String? = nil, contentEncoding: String? = nil, creationTimeMs: Int64? = nil, messageSchema: String? = nil, outputName: String? = nil, interfaceId: String? = nil, component: String? = nil, expiresInMs: UInt64? = nil, durability: Durability? = nil) {} }
public struct Outgoing: Sendable { public init(body: Data, draft: Draft? = nil) {} }
public struct Received: Sendable { public let body: Data; public let properties: [Property]; public let messageId, correlationId, userId, contentType, contentEncoding: String?; public let creationTimeMs: Int64?; public let sequence: UInt64?; public let enqueuedAtMs: Int64?; public let deliveryCount: UInt32? }
public struct Circumstances: Sendable { public let kind: String; public let code: UInt16; public let operation: String; public let retry: String; public let retryAfterMs: UInt64?; public let causes: [String] }
public enum Outcome: Sendable { case delivered(partition: UInt32?, sequence: UInt64?), expired, dropped(reason: String), rejected(reason: String) }
public enum ReceiptState: Sendable { case queued, sent, settled(outcome: Outcome), unknown }
public enum ConnectionState: Sendable { case connected, connecting, disconnected(reason: String?), unauthorized(reason: String), suspended, closed }
public struct Receipt: Sendable { public let place, sequence: UInt64; public let messageId: String?; public let ended: Outcome? }
public enum Stored: Sendable { case safe(token: UInt64, receipt: Receipt), failed(token: UInt64, failure: Failure) }
public struct Account: Sendable { public let accepted, delivered, expired, dropped, rejected, queued: UInt64 }
public struct Counters: Sendable { public let account: Account; public let queuedAlerts, queuedBytes: UInt64; public let oldestAgeMs: UInt64?; public let sent: UInt64; public let droppedByReason: [String: UInt64]; public let refused, writtenBytes: UInt64 }
public enum LogLevel: Sendable { case error, warn, info, debug, trace }
public struct LogRecord: Sendable { public let level: LogLevel; public let target, message: String; public let lost: UInt64 }
public protocol LogSink: AnyObject, Sendable { func log(record: LogRecord) throws }
public func setLog(level: LogLevel?, sink: LogSink?) {}
public struct ErrorKindRow { public let name: String; public let code: UInt16; public let retry: String }
public func errorKinds() -> [ErrorKindRow] { [] }
public func version() -> String { "" }
public func panicLater(text: String, cancel: CancelToken?) async throws {}
open class Device: @unchecked Sendable {
  public static func `open`(connectionString: String, options: DeviceOptions, cancel: CancelToken?) async throws -> Device { Device() }
  open func accept(token: UInt64, body: Data, draft: Draft?) throws {}
  open func storedReady(cancel: CancelToken?) async throws {}
  open func takeStored() -> [Stored] { [] }
  open func sendMany(messages: [Outgoing], cancel: CancelToken?) async throws -> [Receipt] { [] }
  open func receipt(messageId: String, cancel: CancelToken?) async throws -> Receipt? { nil }
  open func messageId(place: UInt64, sequence: UInt64) -> String { "" }
  open func state(place: UInt64, sequence: UInt64) throws -> ReceiptState { .unknown }
  open func outcome(place: UInt64, sequence: UInt64, cancel: CancelToken?) async throws -> Outcome { .expired }
  open func inbox() -> Inbox { fatalError() }
  open func connection() throws -> ConnectionState { .closed }
  open func connectionChanges() -> ConnectionChanges { fatalError() }
  open func account() throws -> Account { fatalError() }
  open func counters(cancel: CancelToken?) async throws -> Counters { fatalError() }
  open func flush(deadlineMs: UInt64, cancel: CancelToken?) async throws -> UInt64 { 0 }
  open func suspend(budgetMs: UInt64, cancel: CancelToken?) async throws -> UInt64 { 0 }
  open func resume(cancel: CancelToken?) async throws {}
  open func shutdown(cancel: CancelToken?) async throws {}
}
public enum TakenCommand { case nothing, end, command(command: Command, message: Received) }
public enum TakenState { case nothing, end, state(state: ConnectionState) }
open class Inbox: @unchecked Sendable { open func take() throws -> TakenCommand { .end }; open func ready(cancel: CancelToken?) async throws {}; open func passOn() {} }
open class ConnectionChanges: @unchecked Sendable { open func take() throws -> TakenState { .end }; open func ready(cancel: CancelToken?) async throws {}; open func passOn() {} }
open class Command: @unchecked Sendable { open func complete(cancel: CancelToken?) async throws {}; open func abandon(cancel: CancelToken?) async throws {}; open func reject(cancel: CancelToken?) async throws {} }
public enum Failure: Swift.Error {
  case InvalidArgument(reason: String, details: [String: String], about: Circumstances)
  case PayloadTooLarge(reason: String, details: [String: String], about: Circumstances)
  case Unsupported(reason: String, details: [String: String], about: Circumstances)
  case Closed(reason: String, details: [String: String], about: Circumstances)
  case InUse(reason: String, details: [String: String], about: Circumstances)
  case Cancelled(reason: String, details: [String: String], about: Circumstances)
  case OutboxFull(reason: String, details: [String: String], about: Circumstances)
  case Expired(reason: String, details: [String: String], about: Circumstances)
  case Rejected(reason: String, details: [String: String], about: Circumstances)
  case Conflict(reason: String, details: [String: String], about: Circumstances)
  case Timeout(reason: String, details: [String: String], about: Circumstances)
  case NotFound(reason: String, details: [String: String], about: Circumstances)
  case QueueFull(reason: String, details: [String: String], about: Circumstances)
  case LockLost(reason: String, details: [String: String], about: Circumstances)
  case Unauthorized(reason: String, details: [String: String], about: Circumstances)
  case Unreachable(reason: String, details: [String: String], about: Circumstances)
  case Protocol(reason: String, details: [String: String], about: Circumstances)
  case Throttled(reason: String, details: [String: String], about: Circumstances)
  case JournalIo(reason: String, details: [String: String], about: Circumstances)
  case JournalCorrupt(reason: String, details: [String: String], about: Circumstances)
  case JournalVersion(reason: String, details: [String: String], about: Circumstances)
  case DiskFull(reason: String, details: [String: String], about: Circumstances)
  case Internal(reason: String, details: [String: String], about: Circumstances)
}
