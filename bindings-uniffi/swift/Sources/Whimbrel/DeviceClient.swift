import Foundation
internal import WhimbrelNative

/// A device's connection to its hub, with a durable outbox.
///
/// ```swift
/// let device = try await DeviceClient.open(connectionString, options: .init(outboxDirectory: folder))
/// let receipt = try await device.send(.telemetry(data).property("room", "attic"))
/// for try await command in device.inbox() { try await command.complete() }
/// ```
///
/// Opening needs no network, and neither does sending: a message is safe when ``send(_:)`` returns, and delivery goes on in the
/// background. Call ``shutdown()`` when it is no longer needed; going out of scope closes nothing and is reported once in the log.
///
/// Safe to share between tasks. A task that is cancelled while it waits here gets `CancellationError`, and the waiting really ends;
/// what that means for the work stands with each call.
///
/// An app that goes to the background calls ``suspend(budget:)``, and ``resume()`` when it is back.
public final class DeviceClient: Sendable {
  private let native: WhimbrelNative.Device
  private let sends: Sends

  private init(_ native: WhimbrelNative.Device) {
    self.native = native
    sends = Sends(native)
  }

  /// The version of the library.
  public static var version: String { WhimbrelNative.version() }

  /// Opens the outbox and returns; connecting goes on in the background. Never waits for the network.
  ///
  /// Cancelling leaves nothing behind but, perhaps, an empty outbox on the disk.
  ///
  /// - Parameters:
  ///   - connectionString: Of a device: `HostName=…;DeviceId=…;SharedAccessKey=…`.
  ///   - options: Where the outbox is, and whatever else is not as usual.
  /// - Throws: ``WhimbrelError/invalidArgument(_:)`` naming the option; ``WhimbrelError/inUse(_:)``,
  ///   ``WhimbrelError/journalIO(_:)`` (also while the files are protected: before the first unlock of an iPhone, for one; open it
  ///   again later), ``WhimbrelError/journalVersion(_:)``, ``WhimbrelError/diskFull(_:)`` from the outbox.
  public static func open(
    _ connectionString: String, options: DeviceOptions = DeviceOptions()
  ) async throws -> DeviceClient {
    let options = try options.native()
    return DeviceClient(
      try await cancellable {
        try await WhimbrelNative.Device.open(connectionString: connectionString, options: options, cancel: $0)
      })
  }

  /// Takes a message in; returns when it is on the disk, or as safe as was chosen.
  ///
  /// Cancelling leaves the message either wholly in or wholly out; ``account()`` tells.
  ///
  /// - Throws: ``WhimbrelError/outboxFull(_:)``, ``WhimbrelError/payloadTooLarge(_:)``, ``WhimbrelError/invalidArgument(_:)``,
  ///   ``WhimbrelError/closed(_:)``, ``WhimbrelError/journalIO(_:)``, ``WhimbrelError/diskFull(_:)``.
  @discardableResult
  public func send(_ message: Message) async throws -> Receipt {
    Receipt(native, try await sends.send(message.body, message.native("device.send")))
  }

  /// Takes many in, in order, with one commit. All or none, also when cancelled. Receipts in the order of the messages.
  ///
  /// - Throws: As ``send(_:)``.
  @discardableResult
  public func sendMany(_ messages: [Message]) async throws -> [Receipt] {
    let outgoing = try messages.map { message in
      WhimbrelNative.Outgoing(body: message.body, draft: try message.native("device.send_all"))
    }
    return try await cancellable { try await native.sendMany(messages: outgoing, cancel: $0) }.map { Receipt(native, $0) }
  }

  /// The receipt of a message by its id, also after a restart; nil when it is not known any more. Cancelling changes nothing.
  public func receipt(_ messageID: String) async throws -> Receipt? {
    try await cancellable { try await native.receipt(messageId: messageID, cancel: $0) }.map { Receipt(native, $0) }
  }

  /// The commands for this device. The first call has the hub send them, on this connection and each later one.
  public func inbox() -> Inbox {
    Inbox(native: native.inbox())
  }

  /// What the link is doing.
  public var connection: ConnectionState {
    get throws { try translated { ConnectionState(try native.connection()) } }
  }

  /// What the link is doing: now, and whenever it changes.
  public func connectionChanges() -> ConnectionChanges {
    ConnectionChanges(native: native.connectionChanges())
  }

  /// The account of the outbox: where every message is that was ever accepted.
  public func account() throws -> Account {
    try translated { Account(try native.account()) }
  }

  /// Figures. They may be read from the disk.
  public func counters() async throws -> Counters {
    try await cancellable { Counters(try await native.counters(cancel: $0)) }
  }

  /// Waits until everything is settled or `deadline` is over; returns how many messages are still queued. Never fails for a slow
  /// network. Cancelling changes nothing.
  ///
  /// - Throws: ``WhimbrelError/closed(_:)``.
  @discardableResult
  public func flush(deadline: Duration) async throws -> Int {
    let deadline = try deadline.milliseconds("device.flush", "deadline")
    return try await cancellable { Int(clamping: try await native.flush(deadlineMs: deadline, cancel: $0)) }
  }

  /// For the background: delivers for at most `budget`, then lets go of everything, so that nothing is left that an app must not
  /// have while it sleeps: no connection, no thread, no open file, no lock. Returns how many messages are still queued; they are
  /// safe in the outbox.
  ///
  /// Until ``resume()``, calls that need the outbox throw ``WhimbrelError/closed(_:)``. Iterations over ``inbox()`` and
  /// ``connectionChanges()`` and receipts that are waited for go on waiting. Suspending twice is fine.
  ///
  /// Cancelling stops the waiting, not the suspending.
  @discardableResult
  public func suspend(budget: Duration) async throws -> Int {
    let budget = try budget.milliseconds("device.suspend", "budget")
    return try await cancellable { Int(clamping: try await native.suspend(budgetMs: budget, cancel: $0)) }
  }

  /// Back from the background: opens the outbox again and connects.
  ///
  /// - Throws: ``WhimbrelError/journalIO(_:)`` when the storage is not available, before the first unlock for one. The client stays
  ///   suspended then; call again.
  public func resume() async throws {
    try await cancellable { try await native.resume(cancel: $0) }
  }

  /// Takes no more messages and hands out no more commands, delivers for as long as ``DeviceOptions/closeDeadline`` says,
  /// disconnects and closes the outbox. What is left stays there for the next time; commands that are not settled stay with the hub.
  ///
  /// Cancelling stops the waiting, not the closing; call again to wait on. Shutting down twice is fine.
  ///
  /// - Throws: ``WhimbrelError/journalIO(_:)``, ``WhimbrelError/diskFull(_:)``; told once.
  public func shutdown() async throws {
    try await cancellable { try await native.shutdown(cancel: $0) }
  }
}
