import Foundation
internal import WhimbrelNative

/// An error of the native half as programs see it; a cancelled call is a `CancellationError`.
func translation(of error: WhimbrelNative.Failure) -> any Error {
  typealias Say = WhimbrelError.Failure
  return switch error {
  case .Cancelled: CancellationError()
  case .InvalidArgument(let reason, let details, let about): WhimbrelError.invalidArgument(Say(reason, details, about))
  case .PayloadTooLarge(let reason, let details, let about): WhimbrelError.payloadTooLarge(Say(reason, details, about))
  case .Unsupported(let reason, let details, let about): WhimbrelError.unsupported(Say(reason, details, about))
  case .Closed(let reason, let details, let about): WhimbrelError.closed(Say(reason, details, about))
  case .InUse(let reason, let details, let about): WhimbrelError.inUse(Say(reason, details, about))
  case .OutboxFull(let reason, let details, let about): WhimbrelError.outboxFull(Say(reason, details, about))
  case .Expired(let reason, let details, let about): WhimbrelError.expired(Say(reason, details, about))
  case .Rejected(let reason, let details, let about): WhimbrelError.rejected(Say(reason, details, about))
  case .Conflict(let reason, let details, let about): WhimbrelError.conflict(Say(reason, details, about))
  case .Timeout(let reason, let details, let about): WhimbrelError.timeout(Say(reason, details, about))
  case .NotFound(let reason, let details, let about): WhimbrelError.notFound(Say(reason, details, about))
  case .QueueFull(let reason, let details, let about): WhimbrelError.queueFull(Say(reason, details, about))
  case .LockLost(let reason, let details, let about): WhimbrelError.lockLost(Say(reason, details, about))
  case .Unauthorized(let reason, let details, let about): WhimbrelError.unauthorized(Say(reason, details, about))
  case .Unreachable(let reason, let details, let about): WhimbrelError.unreachable(Say(reason, details, about))
  case .Protocol(let reason, let details, let about): WhimbrelError.`protocol`(Say(reason, details, about))
  case .Throttled(let reason, let details, let about): WhimbrelError.throttled(Say(reason, details, about))
  case .JournalIo(let reason, let details, let about): WhimbrelError.journalIO(Say(reason, details, about))
  case .JournalCorrupt(let reason, let details, let about): WhimbrelError.journalCorrupt(Say(reason, details, about))
  case .JournalVersion(let reason, let details, let about): WhimbrelError.journalVersion(Say(reason, details, about))
  case .DiskFull(let reason, let details, let about): WhimbrelError.diskFull(Say(reason, details, about))
  case .Internal(let reason, let details, let about): WhimbrelError.`internal`(Say(reason, details, about))
  }
}

extension WhimbrelError {
  /// What cannot be converted.
  static func invalid(_ operation: String, _ text: String) -> WhimbrelError {
    .invalidArgument(
      Failure(
        kind: "INVALID_ARGUMENT", code: 101, reason: "\(operation): \(text)", details: [:], operation: operation, retry: .never,
        retryAfter: nil, causes: []))
  }
}

extension WhimbrelError.Failure {
  init(_ reason: String, _ details: [String: String], _ about: WhimbrelNative.Circumstances) {
    self.init(
      kind: about.kind, code: Int(about.code), reason: reason, details: details, operation: about.operation,
      retry: WhimbrelError.Retry(rawValue: about.retry) ?? .never, retryAfter: about.retryAfterMs.map { .milliseconds($0) },
      causes: about.causes)
  }
}

extension Message {
  private var isPlain: Bool {
    lane == .telemetry && properties.isEmpty && messageID == nil && correlationID == nil && userID == nil && contentType == nil
      && contentEncoding == nil && creationTime == nil && messageSchema == nil && outputName == nil && interfaceID == nil
      && component == nil && expiresIn == nil && durability == nil
  }

  /// What is said besides the body; nil when that is nothing. `operation` is the call it was given to.
  func native(_ operation: String) throws -> WhimbrelNative.Draft? {
    // Most messages are so, and nothing is cheaper to hand over than nothing.
    if isPlain { return nil }
    return WhimbrelNative.Draft(
      lane: lane.native,
      properties: properties.map { WhimbrelNative.Property(name: $0.key, value: $0.value) },
      messageId: messageID,
      correlationId: correlationID,
      userId: userID,
      contentType: contentType,
      contentEncoding: contentEncoding,
      creationTimeMs: creationTime?.unixMilliseconds,
      messageSchema: messageSchema,
      outputName: outputName,
      interfaceId: interfaceID,
      component: component,
      expiresInMs: try expiresIn?.milliseconds(operation, "time to live"),
      durability: durability?.native
    )
  }
}

extension Lane {
  var native: WhimbrelNative.Lane {
    switch self {
    case .telemetry: .telemetry
    case .alert: .alert
    }
  }
}

extension Durability {
  var native: WhimbrelNative.Durability {
    switch self {
    case .onDisk: .onDisk
    case .interval: .interval
    case .memory: .memory
    }
  }
}

extension Overflow {
  var native: WhimbrelNative.Overflow {
    switch self {
    case .reject: .reject
    case .dropOldest: .dropOldest
    case .dropNewest: .dropNewest
    }
  }
}

extension TransportProtocol {
  var native: WhimbrelNative.`Protocol` {
    switch self {
    case .auto: .auto
    case .mqtt3: .mqtt3
    case .mqtt5: .mqtt5
    case .amqp: .amqp
    case .http: .http
    }
  }
}

extension Outcome {
  init(_ native: WhimbrelNative.Outcome) {
    self =
      switch native {
      case .delivered(let partition, let sequence): .delivered(partition: partition, sequence: sequence)
      case .expired: .expired
      case .dropped(let reason): .dropped(reason: reason)
      case .rejected(let reason): .rejected(reason: reason)
      }
  }
}

extension ReceiptState {
  init(_ native: WhimbrelNative.ReceiptState) {
    self =
      switch native {
      case .queued: .queued
      case .sent: .sent
      case .settled(let outcome): .settled(Outcome(outcome))
      case .unknown: .unknown
      }
  }
}

extension ConnectionState {
  init(_ native: WhimbrelNative.ConnectionState) {
    self =
      switch native {
      case .disconnected(let reason): .disconnected(reason: reason)
      case .connecting: .connecting
      case .connected: .connected
      case .unauthorized(let reason): .unauthorized(reason: reason)
      case .suspended: .suspended
      case .closed: .closed
      }
  }
}

extension Account {
  init(_ native: WhimbrelNative.Account) {
    self.init(
      accepted: native.accepted, delivered: native.delivered, expired: native.expired, dropped: native.dropped,
      rejected: native.rejected, queued: native.queued)
  }
}

extension Counters {
  init(_ native: WhimbrelNative.Counters) {
    self.init(
      account: Account(native.account), queuedAlerts: native.queuedAlerts, queuedBytes: native.queuedBytes,
      oldestAge: native.oldestAgeMs.map { .milliseconds($0) }, sent: native.sent, droppedByReason: native.droppedByReason,
      refused: native.refused, writtenBytes: native.writtenBytes)
  }
}
