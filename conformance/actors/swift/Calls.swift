import Foundation
@_spi(Testing) import Whimbrel

/// An answer as it goes into a line. Made of JSON's own values, and never changed.
struct Answer: @unchecked Sendable {
  let fields: [String: Any]

  init(_ fields: [String: Any] = [:]) {
    self.fields = fields
  }
}

/// What the driver has names for.
actor Things {
  private var all: [String: any Sendable] = [:]

  func keep(_ thing: any Sendable, as name: String) { all[name] = thing }

  func find<Thing>(_ name: String) throws -> Thing {
    guard let thing = all[name] as? Thing else { throw Mistake(text: "\(name) is no \(Thing.self)") }
    return thing
  }
}

struct Call: Sendable {
  let call: String
  let on: String
  let keep: String
  let said: Said

  func perform(_ things: Things) async throws -> Answer {
    func device() async throws -> DeviceClient { try await things.find(on) }
    func command() async throws -> Command { try await things.find(on) }
    func receipt() async throws -> Receipt { try await things.find(on) }

    switch call {
    case "hello":
      return Answer(["language": "Swift"])
    case "device.open":
      let options = try DeviceOptions(Said(said.values["options"] as? [String: Any] ?? [:]))
      await things.keep(try await DeviceClient.open(said.needed("connection_string"), options: options), as: keep)
    case "device.send":
      let sent = try await device().send(Message(said, body: body(said)))
      await things.keep(sent, as: keep)
      return Answer(["message_id": sent.messageID])
    case "device.send_json":
      var message = try Message.json(JSON(said.values["value"] ?? NSNull()))
      try message.tell(said)
      let sent = try await device().send(message)
      await things.keep(sent, as: keep)
      return Answer(["message_id": sent.messageID])
    case "device.send_many":
      let receipts = try await device().sendMany(said.words("messages").map { try Message($0, body: body($0)) })
      for (at, receipt) in receipts.enumerated() { await things.keep(receipt, as: "\(keep).\(at)") }
      return Answer(["message_ids": receipts.map(\.messageID)])
    case "device.receipt":
      guard let found = try await device().receipt(said.needed("message_id")) else { return Answer(["found": false]) }
      await things.keep(found, as: keep)
      return Answer(["found": true])
    case "device.inbox":
      await things.keep(try await device().inbox(), as: keep)
    case "device.account":
      return Answer(try await account(device().account()))
    case "device.counters":
      let counters = try await device().counters()
      return Answer([
        "account": account(counters.account), "queued_alerts": plain(counters.queuedAlerts),
        "refused": plain(counters.refused), "sent": plain(counters.sent),
        "dropped_by_reason": counters.droppedByReason.mapValues(plain),
      ])
    case "device.connection":
      return Answer(try await state(device().connection))
    case "device.states":
      await things.keep(try await device().connectionChanges(), as: keep)
    case "states.next":
      let states: ConnectionChanges = try await things.find(on)
      var iterator = states.makeAsyncIterator()
      guard let next = try await iterator.next() else { return Answer(["end": true]) }
      return Answer(state(next))
    case "device.flush":
      return Answer(["left": try await device().flush(deadline: said.duration("deadline_ms") ?? .zero)])
    case "device.suspend":
      return Answer(["left": try await device().suspend(budget: said.duration("budget_ms") ?? .zero)])
    case "device.resume":
      try await device().resume()
    case "device.close":
      try await device().shutdown()
    case "receipt.state":
      switch try await receipt().state() {
      case .queued: return Answer(["state": "queued"])
      case .sent: return Answer(["state": "sent"])
      case .unknown: return Answer(["state": "unknown"])
      case .settled(let ended): return Answer(outcome(ended).merging(["state": "settled"]) { first, _ in first })
      }
    case "receipt.outcome":
      return Answer(outcome(try await receipt().outcome()))
    case "inbox.next":
      let inbox: Inbox = try await things.find(on)
      guard let next = try await inbox.next() else { return Answer(["end": true]) }
      await things.keep(next, as: keep)
      return Answer(received(next))
    case "command.complete":
      try await command().complete()
    case "command.abandon":
      try await command().abandon()
    case "command.reject":
      try await command().reject()
    case "panic":
      try await provokePanic()
    default:
      throw Mistake(text: "there is no call \(call)")
    }
    return Answer()
  }
}

private func account(_ account: Account) -> [String: Any] {
  [
    "accepted": plain(account.accepted), "delivered": plain(account.delivered), "expired": plain(account.expired),
    "dropped": plain(account.dropped), "rejected": plain(account.rejected), "queued": plain(account.queued),
  ]
}

private func state(_ state: ConnectionState) -> [String: Any] {
  switch state {
  case .disconnected(let reason): ["state": "disconnected", "reason": orNull(reason)]
  case .connecting: ["state": "connecting"]
  case .connected: ["state": "connected"]
  case .unauthorized(let reason): ["state": "unauthorized", "reason": reason]
  case .suspended: ["state": "suspended"]
  case .closed: ["state": "closed"]
  }
}

private func outcome(_ outcome: Outcome) -> [String: Any] {
  switch outcome {
  case .delivered(let partition, let sequence):
    ["outcome": "delivered", "partition": orNull(partition), "sequence": orNull(sequence.map(plain))]
  case .expired: ["outcome": "expired"]
  case .dropped(let reason): ["outcome": "dropped", "reason": reason]
  case .rejected(let reason): ["outcome": "rejected", "reason": reason]
  }
}

private func received(_ command: Command) -> [String: Any] {
  [
    "body": command.body.base64EncodedString(), "properties": command.properties,
    "message_id": orNull(command.messageID), "correlation_id": orNull(command.correlationID),
    "user_id": orNull(command.userID), "content_type": orNull(command.contentType),
    "content_encoding": orNull(command.contentEncoding), "creation_time_ms": orNull(milliseconds(command.creationTime)),
    "sequence": orNull(command.sequence.map(plain)), "enqueued_at_ms": orNull(milliseconds(command.enqueuedAt)),
    "delivery_count": orNull(command.deliveryCount),
  ]
}

private func milliseconds(_ time: Date?) -> Int? { time.map { Int(($0.timeIntervalSince1970 * 1_000).rounded()) } }
