import Foundation
internal import WhimbrelNative

/// The commands for this device, taken one by one when the program is ready for them.
///
/// ```swift
/// for try await command in device.inbox() {
///   try await command.complete()
/// }
/// ```
///
/// Several tasks may read at a time; each command goes to one of them. The sequence ends when the client is shut down. While the
/// client is suspended, it waits.
public struct Inbox: AsyncSequence, Sendable {
  public typealias Element = Command
  let native: WhimbrelNative.Inbox

  public func makeAsyncIterator() -> AsyncIterator {
    AsyncIterator(inbox: self)
  }

  /// The next command; nil once the client is shut down.
  ///
  /// A cancelled wait throws `CancellationError` and loses nothing: a command that was not returned goes to whoever asks next.
  public func next() async throws -> Command? {
    try await pulled(
      take: {
        switch try native.take() {
        case .nothing: Optional<Command?>.none
        case .end: .some(nil)
        case .command(let command, let message): .some(Command(command, message))
        }
      }, ready: { try await native.ready(cancel: $0) }, passOn: { native.passOn() })
  }

  /// One reader of the inbox.
  public struct AsyncIterator: AsyncIteratorProtocol {
    let inbox: Inbox

    public mutating func next() async throws -> Command? {
      try await inbox.next()
    }
  }
}

/// A message of the back end to this device. It is settled once: completed, abandoned or rejected. One that is never settled comes
/// again when its lock at the hub ends.
public struct Command: Sendable {
  /// The content.
  public let body: Data
  /// The application properties.
  public let properties: [String: String]
  /// The message id, where the sender gave one.
  public let messageID: String?
  /// The message this one belongs to.
  public let correlationID: String?
  /// Whom it is from.
  public let userID: String?
  /// Content type of the body.
  public let contentType: String?
  /// Character set of the body.
  public let contentEncoding: String?
  /// When it was made, by the sender's clock.
  public let creationTime: Date?
  /// Its number in the device's queue, where the protocol tells it (not on MQTT 3.1.1).
  public let sequence: UInt64?
  /// When the hub took it in, where the protocol tells it (not on MQTT 3.1.1).
  public let enqueuedAt: Date?
  /// How many deliveries counted before this one, where the protocol tells it (not on MQTT 3.1.1).
  public let deliveryCount: UInt32?

  private let native: WhimbrelNative.Command

  init(_ native: WhimbrelNative.Command, _ message: WhimbrelNative.Received) {
    self.native = native
    body = message.body
    properties = Dictionary(message.properties.map { ($0.name, $0.value) }) { _, last in last }
    messageID = message.messageId
    correlationID = message.correlationId
    userID = message.userId
    contentType = message.contentType
    contentEncoding = message.contentEncoding
    creationTime = message.creationTimeMs.map(Date.init(unixMilliseconds:))
    sequence = message.sequence
    enqueuedAt = message.enqueuedAtMs.map(Date.init(unixMilliseconds:))
    deliveryCount = message.deliveryCount
  }

  /// Done: the hub removes it. Cancelling stops the waiting, not the settling; that holds for all three.
  ///
  /// - Throws: ``WhimbrelError/conflict(_:)`` when it was settled already, ``WhimbrelError/lockLost(_:)`` when its lock has ended,
  ///   ``WhimbrelError/closed(_:)``; that holds for all three.
  public func complete() async throws {
    try await cancellable { try await native.complete(cancel: $0) }
  }

  /// Not now: it comes again.
  public func abandon() async throws {
    try await cancellable { try await native.abandon(cancel: $0) }
  }

  /// Never: it becomes a dead letter.
  public func reject() async throws {
    try await cancellable { try await native.reject(cancel: $0) }
  }
}
