import Foundation

/// A message of this device: a body, and what is said about it.
///
/// ```swift
/// try await device.send(.telemetry(data).property("room", "attic").expires(in: .seconds(3600)))
/// ```
///
/// What is not said stays unsaid; nothing here has a default of its own. A value; safe to share.
public struct Message: Sendable, Hashable {
  /// The content. The library does not look into it.
  public var body: Data
  /// Which queue of the outbox it waits in.
  public var lane: Lane
  /// Application properties. Names and values hold any text but NUL.
  public var properties: [String: String] = [:]
  /// The id it is known by; the library makes one where there is none.
  public var messageID: String?
  /// The message this one belongs to.
  public var correlationID: String?
  /// Whom it is from.
  public var userID: String?
  /// Content type of the body, such as `application/json`.
  public var contentType: String?
  /// Character set of the body, such as `utf-8`.
  public var contentEncoding: String?
  /// When it was made, by this device's clock; to the millisecond.
  public var creationTime: Date?
  /// Schema of the content.
  public var messageSchema: String?
  /// Output of the module it comes from.
  public var outputName: String?
  /// Interface id of a security message.
  public var interfaceID: String?
  /// The component it belongs to.
  public var component: String?
  /// How long it is worth delivering, counted from `send`; rounded up to whole milliseconds. Zero is refused.
  public var expiresIn: Duration?
  /// What `send` waits for, where it is not what the outbox is set to.
  public var durability: Durability?

  /// A message with this body.
  public init(_ body: Data, lane: Lane = .telemetry) {
    self.body = body
    self.lane = lane
  }

  /// A reading or an event: delivered in the order of sending.
  public static func telemetry(_ body: Data) -> Message {
    Message(body)
  }

  /// Something urgent: overtakes all telemetry that waits.
  public static func alert(_ body: Data) -> Message {
    Message(body, lane: .alert)
  }

  /// A value as JSON in UTF-8, with `contentType` and `contentEncoding` that say so.
  ///
  /// - Throws: What the encoder throws.
  public static func json(
    _ value: some Encodable, lane: Lane = .telemetry, encoder: JSONEncoder = JSONEncoder()
  ) throws -> Message {
    var message = Message(try encoder.encode(value), lane: lane)
    message.contentType = "application/json"
    message.contentEncoding = "utf-8"
    return message
  }

  /// The same message with one more application property.
  public func property(_ name: String, _ value: String) -> Message {
    var message = self
    message.properties[name] = value
    return message
  }

  /// The same message that is given up when it was not delivered in this time.
  public func expires(in time: Duration) -> Message {
    with(\.expiresIn, time)
  }

  /// The same message with another value of a field: `.with(\.contentType, "text/plain")`.
  public func with<Value>(_ field: WritableKeyPath<Message, Value>, _ value: Value) -> Message {
    var message = self
    message[keyPath: field] = value
    return message
  }
}

/// The queue of the outbox a message waits in. The order is kept within each.
public enum Lane: String, Sendable, CaseIterable {
  /// Everything usual.
  case telemetry
  /// What overtakes all telemetry.
  case alert
}

/// How safe a message is when `send` returns.
public enum Durability: String, Sendable, CaseIterable {
  /// On the disk, and synced: power may fail.
  case onDisk = "on-disk"
  /// Written, and synced at intervals: this process may be killed, and a power cut loses one interval.
  case interval
  /// In memory until it is written at leisure: lost when this process ends.
  case memory
}

/// What happens to a message for which the outbox has no room.
public enum Overflow: String, Sendable, CaseIterable {
  /// It is refused with ``WhimbrelError/outboxFull(_:)``.
  case reject
  /// It is taken in, and the oldest of its lane are dropped.
  case dropOldest = "drop-oldest"
  /// It is taken in and dropped at once; its receipt says so.
  case dropNewest = "drop-newest"
}

/// How to speak to the hub.
public enum TransportProtocol: String, Sendable, CaseIterable {
  /// MQTT 5, or 3.1.1 where the hub has no 5.
  case auto
  /// MQTT 3.1.1.
  case mqtt3
  /// MQTT 5.
  case mqtt5
  /// AMQP 1.0.
  case amqp
  /// HTTP: for a message now and then.
  case http
}
