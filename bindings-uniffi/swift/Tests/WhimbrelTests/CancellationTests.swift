import Foundation
import Whimbrel
import WhimbrelTesting
import XCTest

/// A cancelled wait ends at once, throws `CancellationError`, and loses nothing.
final class CancellationTests: HubTest, @unchecked Sendable {
  func testWaitingForAnOutcomeEndsAndTheOutcomeStillComes() async throws {
    let connectionString = try hub.createDevice("cancel-outcome")
    let device = try await DeviceClient.open(connectionString, options: offline())
    let receipt = try await device.send(.telemetry(bytes("x")))
    try await assertCancelled { _ = try await receipt.outcome() }
    XCTAssertEqual(try receipt.state(), .queued)
    try await assertCancelled { _ = try await device.flush(deadline: .seconds(3600)) }
    XCTAssertEqual(try device.account().queued, 1)
    try await device.shutdown()
    let next = try await DeviceClient.open(connectionString, options: options())
    let outcome = try await XCTUnwrapAsync(try await next.receipt(receipt.messageID)).outcome()
    guard case .delivered = outcome else { return XCTFail("\(outcome)") }
    try await next.shutdown()
  }

  func testAWaitForACommandThatWasGivenUpTakesNoneWithIt() async throws {
    try await withDevice { device, id in
      let inbox = device.inbox()
      try await assertCancelled { _ = try await inbox.next() }
      try hub.whimbrel("command", "send", id, "one")
      let command = try await XCTUnwrapAsync(try await inbox.next())
      XCTAssertEqual(command.body, bytes("one"))
      try await command.complete()
    }
  }

  func testCommandsInAStormOfCancelledWaitsComeOnceEach() async throws {
    try await withDevice { device, id in
      let inbox = device.inbox()
      let count = 40
      let sent = Task.detached { [hub] in
        for number in 0..<count { try hub!.whimbrel("command", "send", id, "\(number)") }
      }
      var seen: [String] = []
      while seen.count < count {
        // Several wait, and all are told to stop at once, whatever is on its way to them.
        let waits = (0..<4).map { _ in
          Task { () throws -> String? in
            guard let command = try await inbox.next() else { return nil }
            try await Task { try await command.complete() }.value
            return String(decoding: command.body, as: UTF8.self)
          }
        }
        for _ in 0..<Int.random(in: 0..<200) { await Task.yield() }
        waits.forEach { $0.cancel() }
        for wait in waits {
          do {
            if let body = try await wait.value { seen.append(body) }
          } catch is CancellationError {}
        }
      }
      try await sent.value
      XCTAssertEqual(seen.sorted(), (0..<count).map(String.init).sorted())
    }
  }

  func testAWaitForAStateEndsAndTheNextOneSeesIt() async throws {
    try await withDevice { device, _ in
      var states = device.connectionChanges().makeAsyncIterator()
      while try await states.next() != .connected {}
      let changes = device.connectionChanges()
      let first = try await changes.next()
      XCTAssertEqual(first, .connected)
      try await assertCancelled { _ = try await changes.next() }
      try await device.shutdown()
      var last: ConnectionState?
      while let state = try await changes.next() { last = state }
      XCTAssertEqual(last, .closed)
    }
  }

  func testAMessageWhoseSendingIsCancelledIsWhollyInOrWhollyOut() async throws {
    try await withDevice { device, id in
      var done = 0
      for round in 0..<300 {
        let send = Task { try await device.send(.telemetry(bytes("\(round)"))) }
        if round % 3 != 0 { await Task.yield() }
        send.cancel()
        do {
          _ = try await send.value
          done += 1
        } catch is CancellationError {}
      }
      // What was in is delivered, and nothing twice.
      let left = try await device.flush(deadline: .seconds(60))
      XCTAssertEqual(left, 0)
      let account = try device.account()
      XCTAssertTrue(account.balances)
      XCTAssertGreaterThanOrEqual(account.accepted, UInt64(done))
      let events = try hub.events(of: id)
      XCTAssertEqual(UInt64(events.count), account.accepted)
      XCTAssertEqual(Set(events.map { "\($0["body"] ?? "")" }).count, events.count)
    }
  }

  func testNothingBeginsInATaskThatIsCancelledAlready() async throws {
    try await withDevice { device, _ in
      let task = Task {
        withUnsafeCurrentTask { $0?.cancel() }
        try await device.send(.telemetry(bytes("x")))
      }
      let error = try await failure { try await task.value }
      XCTAssertTrue(error is CancellationError, "\(error)")
      XCTAssertEqual(try device.account().accepted, 0)
    }
  }

  func testShuttingDownGoesOnWithoutItsWait() async throws {
    let connectionString = try hub.createDevice("cancel-shutdown")
    var slow = offline()
    slow.closeDeadline = .seconds(2)
    let device = try await DeviceClient.open(connectionString, options: slow)
    try await device.send(.telemetry(bytes("x")))
    try await assertCancelled { try await device.shutdown() }
    try await device.shutdown()
    XCTAssertEqual(try device.connection, .closed)
    // The folder is free again.
    let next = try await DeviceClient.open(connectionString, options: offline())
    XCTAssertEqual(try next.account().queued, 1)
    try await next.shutdown()
  }

  /// The work waits; its task is cancelled; it has to end, with `CancellationError`.
  private func assertCancelled(
    file: StaticString = #filePath, line: UInt = #line, _ work: @escaping @Sendable () async throws -> Void
  ) async throws {
    let task = Task(operation: work)
    // It is over when it is cancelled, however far it has got by then: both ways are tested.
    if Bool.random() { for _ in 0..<1_000 { await Task.yield() } }
    task.cancel()
    let error = try await failure(file: file, line: line) { try await task.value }
    XCTAssertTrue(error is CancellationError, "\(error)", file: file, line: line)
  }
}
