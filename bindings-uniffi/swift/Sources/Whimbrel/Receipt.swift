import Foundation
internal import WhimbrelNative

/// What ``DeviceClient/send(_:)`` returns: the message is safe, and this is how to follow it. Dropping it changes nothing.
public struct Receipt: Sendable {
  private let device: WhimbrelNative.Device
  private let native: WhimbrelNative.Receipt

  init(_ device: WhimbrelNative.Device, _ native: WhimbrelNative.Receipt) {
    self.device = device
    self.native = native
  }

  /// The id to find this receipt again with, also after a restart: ``DeviceClient/receipt(_:)``.
  public var messageID: String {
    native.messageId ?? device.messageId(place: native.place, sequence: native.sequence)
  }

  /// Where the message is now.
  public func state() throws -> ReceiptState {
    if let ended = native.ended { return .settled(Outcome(ended)) }
    return try translated { ReceiptState(try device.state(place: native.place, sequence: native.sequence)) }
  }

  /// Waits for the end. Cancelling the task changes nothing but the waiting; call again.
  ///
  /// - Throws: ``WhimbrelError/closed(_:)`` when the client is shut down first: ask again by ``messageID`` after opening;
  ///   ``WhimbrelError/notFound(_:)`` when the outcome is no longer kept; `CancellationError`.
  public func outcome() async throws -> Outcome {
    if let ended = native.ended { return Outcome(ended) }
    return try await cancellable {
      Outcome(try await device.outcome(place: native.place, sequence: native.sequence, cancel: $0))
    }
  }
}

/// How a message ended. Every message that was accepted ends in exactly one of these.
public enum Outcome: Sendable, Hashable {
  /// Durable at the hub. The partition and the sequence number in it, where the hub tells them.
  case delivered(partition: UInt32?, sequence: UInt64?)
  /// Its time to live was over first.
  case expired
  /// It had to make room, or was not let in; the reason is a word, such as `made-room`.
  case dropped(reason: String)
  /// The hub refused it for good; the reason is the hub's, for people.
  case rejected(reason: String)
}

/// Where a message is.
public enum ReceiptState: Sendable, Hashable {
  /// In the outbox.
  case queued
  /// On its way; not acknowledged yet.
  case sent
  /// At its end.
  case settled(Outcome)
  /// Its end is no longer kept.
  case unknown
}
