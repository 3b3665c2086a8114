import Foundation
@_spi(Testing) import Whimbrel
import WhimbrelTesting
import XCTest

final class DeviceTests: HubTest, @unchecked Sendable {
  func testAMessageIsDeliveredWholeAndItsReceiptSaysWhere() async throws {
    try await withDevice { device, id in
      var message = Message.telemetry(bytes("21.5")).property("room", "attic").expires(in: .seconds(3600))
      message.messageID = "m-1"
      message.contentType = "text/plain"
      message.contentEncoding = "utf-8"
      let receipt = try await device.send(message)
      XCTAssertEqual(receipt.messageID, "m-1")
      let outcome = try await receipt.outcome()
      guard case .delivered(let partition?, let sequence?) = outcome else { return XCTFail("\(outcome)") }
      XCTAssertEqual(try receipt.state(), .settled(outcome))
      let event = try XCTUnwrap(hub.events(of: id).first)
      XCTAssertEqual(event["partition"] as? UInt32, partition)
      XCTAssertEqual(event["sequence"] as? UInt64, sequence)
      XCTAssertEqual((event["properties"] as? [String: String])?["room"], "attic")
      XCTAssertEqual((event["body"] as? [String: Any])?["text"] as? String, "21.5")
      let account = try device.account()
      XCTAssertEqual([account.accepted, account.delivered, account.queued], [1, 1, 0])
      XCTAssertTrue(account.balances)
      let counters = try await device.counters()
      XCTAssertEqual(counters.account, account)
      XCTAssertEqual(counters.oldestAge, nil)
    }
  }

  func testManySendersAtOnceGetTheirOwnReceipts() async throws {
    try await withDevice { device, id in
      try await withThrowingTaskGroup(of: Void.self) { group in
        for sender in 0..<50 {
          group.addTask {
            for number in 0..<20 {
              let message = Message.telemetry(bytes("x")).with(\.messageID, "\(sender)-\(number)")
              let receipt = try await device.send(number % 5 == 0 ? message.with(\.lane, .alert) : message)
              guard receipt.messageID == "\(sender)-\(number)" else { throw Unexpected() }
            }
          }
        }
        try await group.waitForAll()
      }
      let left = try await device.flush(deadline: .seconds(60))
      XCTAssertEqual(left, 0)
      XCTAssertEqual(try device.account().delivered, 1_000)
      let ids = try Set(hub.events(of: id).compactMap { ($0["system"] as? [String: Any])?["message_id"] as? String })
      XCTAssertEqual(ids.count, 1_000)
    }
  }

  func testManyGoInTogetherOrNotAtAll() async throws {
    try await withDevice { device, id in
      let receipts = try await device.sendMany((0..<100).map { Message.telemetry(bytes("\($0)")) })
      XCTAssertEqual(Set(receipts.map(\.messageID)).count, 100)
      let left = try await device.flush(deadline: .seconds(60))
      XCTAssertEqual(left, 0)
      let bodies = try hub.events(of: id).compactMap { ($0["body"] as? [String: Any])?.values.first.map { "\($0)" } }
      XCTAssertEqual(bodies, (0..<100).map(String.init))
      let tooLarge = Message.telemetry(Data(count: 300_000))
      let error = try await whimbrelError { try await device.sendMany([.telemetry(bytes("a")), tooLarge]) }
      guard case .payloadTooLarge = error else { return XCTFail("\(error)") }
      XCTAssertEqual(try device.account().accepted, 100)
    }
  }

  func testAReceiptIsFoundByItsIDInTheNextLife() async throws {
    let connectionString = try hub.createDevice("next-life")
    let device = try await DeviceClient.open(connectionString, options: offline())
    let sent = try await device.send(.json(["t": 21.5]).with(\.messageID, "m-9"))
    XCTAssertEqual(try sent.state(), .queued)
    let unknown = try await device.receipt("nobody")
    XCTAssertNil(unknown)
    try await device.shutdown()
    let next = try await DeviceClient.open(connectionString, options: options())
    let outcome = try await XCTUnwrapAsync(try await next.receipt("m-9")).outcome()
    guard case .delivered = outcome else { return XCTFail("\(outcome)") }
    let late = try await XCTUnwrapAsync(try await next.receipt("m-9"))
    XCTAssertEqual(try late.state(), .settled(outcome))
    let again = try await late.outcome()
    XCTAssertEqual(again, outcome)
    try await next.shutdown()
  }

  func testCommandsComeWholeAndAreSettled() async throws {
    try await withDevice { device, id in
      try hub.whimbrel(
        "command", "send", id, "open", "--id", "c-1", "--property", "by=hand", "--content-type", "text/plain")
      try hub.whimbrel("command", "send", id, "sing", "--id", "c-2")
      try hub.whimbrel("command", "send", id, "wait", "--id", "c-3")
      var seen: [String] = []
      for try await command in device.inbox() {
        seen.append(String(decoding: command.body, as: UTF8.self))
        switch command.messageID {
        case "c-1":
          XCTAssertEqual(command.properties["by"], "hand")
          XCTAssertEqual(command.contentType, "text/plain")
          XCTAssertEqual(command.deliveryCount, 0)
          XCTAssertNotNil(command.sequence)
          XCTAssertNotNil(command.enqueuedAt)
          try await command.complete()
          let error = try await whimbrelError { try await command.reject() }
          guard case .conflict(let failure) = error else { return XCTFail("\(error)") }
          XCTAssertEqual(failure.kind, "CONFLICT")
          XCTAssertEqual(error.code, 304)
          XCTAssertEqual(error.retry, .never)
        case "c-2":
          try await command.reject()
        default:
          if seen.count == 3 { try await command.abandon() } else { try await command.complete() }
        }
        if seen.count == 4 { break }
      }
      XCTAssertEqual(seen, ["open", "sing", "wait", "wait"])
      for (command, expected) in [("c-1", "Success"), ("c-2", "Rejected"), ("c-3", "Success")] {
        XCTAssertEqual(try hub.outcome(of: command, to: id), expected)
      }
    }
  }

  func testTheInboxAndTheStatesEndWithTheClient() async throws {
    let device = try await DeviceClient.open(hub.createDevice("ends"), options: options())
    let states = Task {
      var seen: [ConnectionState] = []
      for try await state in device.connectionChanges() { seen.append(state) }
      return seen
    }
    let commands = Task {
      for try await _ in device.inbox() { XCTFail("there is none") }
    }
    try await until("a connection") { try device.connection == .connected }
    try await device.shutdown()
    try await device.shutdown()
    try await commands.value
    let seen = try await states.value
    XCTAssertEqual(seen.last, .closed)
    XCTAssertTrue(seen.contains(.connected), "\(seen)")
    let error = try await whimbrelError { try await device.send(.telemetry(bytes("x"))) }
    guard case .closed(let failure) = error else { return XCTFail("\(error)") }
    XCTAssertEqual(failure.operation, "device.send")
    XCTAssertTrue(failure.reason.hasPrefix("device.send: "), failure.reason)
  }

  func testErrorsSayWhatIsWrong() async throws {
    let wrong = try await whimbrelError { try await DeviceClient.open("HostName=h", options: .inMemory) }
    guard case .invalidArgument = wrong else { return XCTFail("\(wrong)") }
    XCTAssertEqual(wrong.localizedDescription, wrong.reason)

    let connectionString = try hub.createDevice("errors")
    var negative = offline()
    negative.keepAlive = .seconds(-1)
    let refused = try await whimbrelError { [negative] in
      try await DeviceClient.open(connectionString, options: negative)
    }
    guard case .invalidArgument(let failure) = refused else { return XCTFail("\(refused)") }
    XCTAssertTrue(failure.reason.contains("keepAlive"), failure.reason)

    var small = offline()
    small.outboxMaxMessages = 2
    small.overflow = .reject
    let device = try await DeviceClient.open(connectionString, options: small)
    let inUse = try await whimbrelError { [small] in try await DeviceClient.open(connectionString, options: small) }
    guard case .inUse(let held) = inUse else { return XCTFail("\(inUse)") }
    XCTAssertFalse(held.details.isEmpty)
    XCTAssertEqual(inUse.retry, .later)
    try await device.sendMany([.telemetry(bytes("1")), .telemetry(bytes("2"))])
    let full = try await whimbrelError { try await device.send(.telemetry(bytes("3"))) }
    guard case .outboxFull(let bound) = full else { return XCTFail("\(full)") }
    XCTAssertEqual(bound.code, 301)
    let zero = try await whimbrelError { try await device.send(.telemetry(bytes("x")).expires(in: .zero)) }
    guard case .invalidArgument = zero else { return XCTFail("\(zero)") }
    try await device.shutdown()
  }

  func testEveryKindsAdviceIsKnown() {
    let rows = errorKinds()
    XCTAssertGreaterThan(rows.count, 20)
    for row in rows { XCTAssertNotNil(WhimbrelError.Retry(rawValue: row.retry), row.name) }
  }

  func testAPanicIsAnErrorAndTheProgramLives() async throws {
    try await withDevice { device, _ in
      let error = try await whimbrelError { try await provokePanic() }
      guard case .internal(let failure) = error else { return XCTFail("\(error)") }
      XCTAssertEqual(failure.details["panic"], "a panic of a test")
      let outcome = try await device.send(.alert(bytes("x"))).outcome()
      guard case .delivered = outcome else { return XCTFail("\(outcome)") }
    }
  }

  func testTheLogComesAndNamesNoBody() async throws {
    let lines = Lines()
    setLog(level: .debug) { lines.add($0) }
    try await withDevice { device, _ in
      _ = try await device.send(.telemetry(bytes("a secret body"))).outcome()
      try await until("a line of the log") { !lines.all.isEmpty }
    }
    setLog(nil)
    for line in lines.all {
      XCTAssertTrue(line.target.hasPrefix("whimbrel"), line.target)
      XCTAssertFalse(line.message.contains("secret"))
    }
  }

  func testDurationsAreRoundedUpAndHaveAnEnd() async throws {
    try await withDevice { device, _ in
      // A microsecond is not zero, which would be refused.
      try await device.send(.telemetry(bytes("x")).expires(in: .microseconds(1)))
      try await device.send(.telemetry(bytes("x")).expires(in: .seconds(Int64.max)))
      let negative = try await whimbrelError { try await device.flush(deadline: .nanoseconds(-1)) }
      guard case .invalidArgument = negative else { return XCTFail("\(negative)") }
    }
  }
}

private final class Lines: @unchecked Sendable {
  private let lock = NSLock()
  private var lines: [LogRecord] = []
  var all: [LogRecord] { lock.withLock { lines } }
  func add(_ line: LogRecord) { lock.withLock { lines.append(line) } }
}

func XCTUnwrapAsync<Value>(_ value: Value?, file: StaticString = #filePath, line: UInt = #line) async throws -> Value {
  try XCTUnwrap(value, file: file, line: line)
}
