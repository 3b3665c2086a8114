import Foundation

/// The account of an outbox: `accepted = delivered + expired + dropped + rejected + queued`, at any time.
public struct Account: Sendable, Hashable {
  /// Messages taken in, ever.
  public let accepted: UInt64
  /// Of these, durable at the hub.
  public let delivered: UInt64
  /// Of these, given up because their time to live was over.
  public let expired: UInt64
  /// Of these, dropped for want of room.
  public let dropped: UInt64
  /// Of these, refused by the hub for good.
  public let rejected: UInt64
  /// Of these, still in the outbox.
  public let queued: UInt64

  /// Whether everything that was accepted is somewhere.
  public var balances: Bool { accepted == delivered + expired + dropped + rejected + queued }
}

/// Figures of an outbox.
public struct Counters: Sendable, Hashable {
  /// The account.
  public let account: Account
  /// Alerts that wait.
  public let queuedAlerts: UInt64
  /// Bytes that wait.
  public let queuedBytes: UInt64
  /// How long the oldest message waits; nil when none does.
  public let oldestAge: Duration?
  /// Messages sent, those sent again included.
  public let sent: UInt64
  /// Messages dropped, by reason.
  public let droppedByReason: [String: UInt64]
  /// Messages refused because there was no room; they are not in the account.
  public let refused: UInt64
  /// Bytes written to the disk.
  public let writtenBytes: UInt64
}
