import Foundation
import Whimbrel

/// A mistake of the actor itself, or of who asks it.
struct Mistake: Error {
  let text: String
}

/// What a request says, by name.
struct Said: @unchecked Sendable {
  // From JSON, and never changed.
  let values: [String: Any]

  init(_ values: [String: Any]) {
    self.values = values
  }

  func text(_ name: String) throws -> String? { try values[name].map(text(of:)) }
  func number<Whole: FixedWidthInteger>(_ name: String) throws -> Whole? { try values[name].map(whole) }
  func truth(_ name: String) -> Bool { values[name] as? Bool ?? false }
  func duration(_ name: String) throws -> Duration? { try number(name).map { (ms: Int) in .milliseconds(ms) } }
  func file(_ name: String) throws -> URL? { try text(name).map { URL(fileURLWithPath: $0) } }

  func needed(_ name: String) throws -> String {
    guard let text = try text(name) else { throw Mistake(text: "\(name) is missing") }
    return text
  }

  func words(_ name: String) -> [Said] { (values[name] as? [[String: Any]] ?? []).map(Said.init) }
}

/// A text, or `{"$utf16": […]}`, which has to be one here.
private func text(of value: Any) throws -> String {
  if let text = value as? String { return text }
  if let units = (value as? [String: Any])?["$utf16"] as? [Int] {
    return String(decoding: units.map { UInt16(truncatingIfNeeded: $0) }, as: UTF16.self)
  }
  throw Mistake(text: "\(value) is no text")
}

/// A whole number, or `{"$int": "…"}`.
private func whole<Whole: FixedWidthInteger>(_ value: Any) throws -> Whole {
  if let number = value as? NSNumber, let whole = Whole(number.stringValue) { return whole }
  if let digits = (value as? [String: Any])?["$int"] as? String, let whole = Whole(digits) { return whole }
  throw Mistake(text: "\(value) is no \(Whole.self)")
}

/// Whole numbers beyond 2^53 have a form of their own.
func plain(_ number: UInt64) -> Any {
  number < 1 << 53 ? NSNumber(value: number) : ["$int": String(number)]
}

func orNull(_ value: Any?) -> Any { value ?? NSNull() }

extension DeviceOptions {
  init(_ said: Said) throws {
    self.init(outboxDirectory: try said.file("outbox"))
    outboxInMemory = said.truth("outbox_in_memory")
    overflow = try word(said, "overflow")
    durability = try word(said, "durability")
    outboxMaxBytes = try said.number("outbox_max_bytes")
    outboxMaxMessages = try said.number("outbox_max_messages")
    outboxMaxAge = try said.duration("outbox_max_age_ms")
    syncInterval = try said.duration("sync_interval_ms")
    keptOutcomes = try said.number("kept_outcomes")
    server = try said.text("server")
    websocket = said.truth("websocket")
    proxy = try said.text("proxy")
    caFile = try said.file("ca_file")
    caPEM = try said.text("ca_pem")
    clientCertificate = try said.file("client_certificate")
    clientKey = try said.file("client_key")
    clientCertificatePEM = try said.text("client_certificate_pem")
    clientKeyPEM = try said.text("client_key_pem")
    allowUnencrypted = said.truth("allow_unencrypted")
    transportProtocol = try word(said, "protocol")
    keepAlive = try said.duration("keep_alive_ms")
    connectTimeout = try said.duration("connect_timeout_ms")
    pollInterval = try said.duration("poll_interval_ms")
    window = try said.number("window")
    inboxWindow = try said.number("inbox_window")
    backoffMin = try said.duration("backoff_min_ms")
    backoffMax = try said.duration("backoff_max_ms")
    closeDeadline = try said.duration("close_deadline_ms")
    tokenLifetime = try said.duration("token_lifetime_ms")
  }
}

extension Message {
  /// A message with what is said about it.
  init(_ said: Said, body: Data) throws {
    self.init(body)
    try tell(said)
  }

  mutating func tell(_ said: Said) throws {
    if let lane: Lane = try word(said, "lane") { self.lane = lane }
    for (name, value) in said.values["properties"] as? [String: Any] ?? [:] {
      properties[name] = try text(of: value)
    }
    messageID = try said.text("message_id")
    correlationID = try said.text("correlation_id")
    userID = try said.text("user_id")
    if let type = try said.text("content_type") { contentType = type }
    if let encoding = try said.text("content_encoding") { contentEncoding = encoding }
    creationTime = try said.number("creation_time_ms").map { (ms: Int) in Date(timeIntervalSince1970: Double(ms) / 1_000) }
    messageSchema = try said.text("message_schema")
    outputName = try said.text("output_name")
    interfaceID = try said.text("interface_id")
    component = try said.text("component")
    expiresIn = try said.duration("expires_in_ms")
    durability = try word(said, "durability")
  }
}

/// A body as the request has it.
func body(_ said: Said) throws -> Data {
  guard let body = Data(base64Encoded: try said.needed("body")) else { throw Mistake(text: "the body is not base64") }
  return body
}

private func word<Word: RawRepresentable<String>>(_ said: Said, _ name: String) throws -> Word? {
  guard let text = try said.text(name) else { return nil }
  guard let word = Word(rawValue: text) else { throw Mistake(text: "\(text) is no \(Word.self)") }
  return word
}

/// A JSON value for the encoder of the library.
enum JSON: Codable {
  case null
  case truth(Bool)
  case whole(Int)
  case number(Double)
  case text(String)
  case items([JSON])
  case fields([String: JSON])

  init(_ value: Any) throws {
    let text = try JSONSerialization.data(withJSONObject: value, options: .fragmentsAllowed)
    self = try JSONDecoder().decode(JSON.self, from: text)
  }

  init(from decoder: any Decoder) throws {
    let one = try decoder.singleValueContainer()
    if one.decodeNil() {
      self = .null
    } else if let truth = try? one.decode(Bool.self) {
      self = .truth(truth)
    } else if let whole = try? one.decode(Int.self) {
      self = .whole(whole)
    } else if let number = try? one.decode(Double.self) {
      self = .number(number)
    } else if let text = try? one.decode(String.self) {
      self = .text(text)
    } else if let items = try? one.decode([JSON].self) {
      self = .items(items)
    } else {
      self = .fields(try one.decode([String: JSON].self))
    }
  }

  func encode(to encoder: any Encoder) throws {
    var one = encoder.singleValueContainer()
    switch self {
    case .null: try one.encodeNil()
    case .truth(let truth): try one.encode(truth)
    case .whole(let whole): try one.encode(whole)
    case .number(let number): try one.encode(number)
    case .text(let text): try one.encode(text)
    case .items(let items): try one.encode(items)
    case .fields(let fields): try one.encode(fields)
    }
  }
}
