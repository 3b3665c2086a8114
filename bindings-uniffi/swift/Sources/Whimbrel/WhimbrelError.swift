import Foundation

/// What went wrong: one case for each kind of `docs/errors.md`.
///
/// ```swift
/// do {
///   try await device.send(.telemetry(data))
/// } catch WhimbrelError.outboxFull {
///   // Later, perhaps.
/// } catch let error as WhimbrelError {
///   print(error.code, error.reason, error.details)
/// }
/// ```
///
/// A wait that its task was cancelled in throws `CancellationError`, never one of these. How a message ended is an ``Outcome`` of
/// its receipt, not an error. No text here holds a body or a secret.
public enum WhimbrelError: Error, Sendable, Hashable {
  /// An option or argument cannot be used; the reason says which and why.
  case invalidArgument(Failure)
  /// The message is over the size limit.
  case payloadTooLarge(Failure)
  /// The protocol or build in use cannot do this.
  case unsupported(Failure)
  /// The client was shut down before the call, or is suspended.
  case closed(Failure)
  /// Another process, or another client of this one, has the outbox folder open.
  case inUse(Failure)
  /// The outbox is at its bound and its overflow policy is to refuse.
  case outboxFull(Failure)
  /// The time to live ended first.
  case expired(Failure)
  /// The other side refused this for good.
  case rejected(Failure)
  /// It exists already, was settled already, or changed meanwhile.
  case conflict(Failure)
  /// The deadline passed; the message is still kept and delivery goes on.
  case timeout(Failure)
  /// There is no such message.
  case notFound(Failure)
  /// The device's queue of commands is at its bound.
  case queueFull(Failure)
  /// The lock on the command has ended; the hub delivers it again, or has ended it.
  case lockLost(Failure)
  /// The credentials are wrong, expired, or do not allow this.
  case unauthorized(Failure)
  /// The other side could not be reached, or the connection was lost.
  case unreachable(Failure)
  /// The other side broke the protocol; the reason names the rule.
  case `protocol`(Failure)
  /// The other side asked to slow down.
  case throttled(Failure)
  /// The disk refused a write or a sync; nothing more is accepted until the outbox is opened again.
  case journalIO(Failure)
  /// The outbox cannot be read at all.
  case journalCorrupt(Failure)
  /// The outbox was written by a newer version.
  case journalVersion(Failure)
  /// There is no space left on the disk; nothing was stored, and it works again when space returns.
  case diskFull(Failure)
  /// A defect in Whimbrel; please report it with the reason.
  case `internal`(Failure)

  /// What an error says besides its kind.
  public struct Failure: Sendable, Hashable {
    /// The kind's name in every language, such as `OUTBOX_FULL`.
    public let kind: String
    /// The kind's number, which never changes.
    public let code: Int
    /// What went wrong, in one complete line for people.
    public let reason: String
    /// Particulars, by name.
    public let details: [String: String]
    /// The call that failed, such as `device.send`.
    public let operation: String
    /// Whether the same call may work when it is made again.
    public let retry: Retry
    /// How long to wait before that, where the other side said so.
    public let retryAfter: Duration?
    /// What caused it, nearest first.
    public let causes: [String]
  }

  /// Whether the same call may work when it is made again.
  public enum Retry: String, Sendable {
    /// It will not.
    case never
    /// It may, later.
    case later
    /// Wait on: nothing is lost.
    case waitAgain = "wait again"
    /// When the outbox was opened again.
    case afterReopen = "after reopen"
    /// That is for the caller to say.
    case callersChoice = "caller's choice"
  }

  /// What it says.
  public var failure: Failure {
    switch self {
    case .invalidArgument(let failure), .payloadTooLarge(let failure), .unsupported(let failure), .closed(let failure),
      .inUse(let failure), .outboxFull(let failure), .expired(let failure), .rejected(let failure), .conflict(let failure),
      .timeout(let failure), .notFound(let failure), .queueFull(let failure), .lockLost(let failure),
      .unauthorized(let failure), .unreachable(let failure), .protocol(let failure), .throttled(let failure),
      .journalIO(let failure), .journalCorrupt(let failure), .journalVersion(let failure), .diskFull(let failure),
      .internal(let failure):
      failure
    }
  }

  /// The kind's number, which never changes.
  public var code: Int { failure.code }
  /// What went wrong, in one complete line for people.
  public var reason: String { failure.reason }
  /// Particulars, by name.
  public var details: [String: String] { failure.details }
  /// Whether the same call may work when it is made again.
  public var retry: Retry { failure.retry }
}

extension WhimbrelError: LocalizedError, CustomStringConvertible {
  public var errorDescription: String? { reason }
  public var description: String { "\(failure.kind): \(reason)" }
}
