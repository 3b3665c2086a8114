import Foundation
import Whimbrel
import WhimbrelTesting
import XCTest

/// Background and foreground.
final class LifecycleTests: HubTest, @unchecked Sendable {
  func testSuspendingDeliversWhatTheBudgetAllowsAndSaysWhatIsLeft() async throws {
    let connectionString = try hub.createDevice("budget")
    let away = try await DeviceClient.open(connectionString, options: offline())
    try await away.sendMany((0..<5).map { .telemetry(bytes("\($0)")) })
    let left = try await away.suspend(budget: .milliseconds(20))
    XCTAssertEqual(left, 5)
    XCTAssertEqual(try away.connection, .suspended)
    let again = try await away.suspend(budget: .seconds(60))
    XCTAssertEqual(again, 5)
    try await away.shutdown()

    let device = try await DeviceClient.open(connectionString, options: options())
    let rest = try await device.suspend(budget: .seconds(60))
    XCTAssertEqual(rest, 0)
    XCTAssertEqual(try hub.events(of: "budget").count, 5)
    try await device.shutdown()
  }

  func testNothingWorksWhileSuspendedAndEverythingAfterwards() async throws {
    try await withDevice { device, id in
      let inbox = device.inbox()
      let waiting = Task { try await inbox.next() }
      try await until("a connection") { try device.connection == .connected }
      try await device.suspend(budget: .zero)
      let error = try await whimbrelError { try await device.send(.telemetry(bytes("x"))) }
      guard case .closed(let failure) = error else { return XCTFail("\(error)") }
      XCTAssertTrue(failure.reason.contains("suspend"), failure.reason)
      try hub.whimbrel("command", "send", id, "wake")
      try await device.resume()
      try await device.resume()
      // Who waited before goes on waiting, and gets what came meanwhile.
      let command = try await XCTUnwrapAsync(try await waiting.value)
      XCTAssertEqual(command.body, bytes("wake"))
      try await command.complete()
      let outcome = try await device.send(.telemetry(bytes("x"))).outcome()
      guard case .delivered = outcome else { return XCTFail("\(outcome)") }
    }
  }

  func testAReceiptHoldsThroughSuspension() async throws {
    var options = options()
    let ownHub = try LocalHub()
    defer { ownHub.close() }
    let own = try ownHub.createDevice("receipt-through")
    options.server = ownHub.server
    let device = try await DeviceClient.open(own, options: options)
    ownHub.stop()
    let receipt = try await device.send(.telemetry(bytes("x")))
    let waiting = Task { try await receipt.outcome() }
    let left = try await device.suspend(budget: .zero)
    XCTAssertEqual(left, 1)
    try ownHub.start()
    try await device.resume()
    let outcome = try await waiting.value
    guard case .delivered = outcome else { return XCTFail("\(outcome)") }
    XCTAssertEqual(try receipt.state(), .settled(outcome))
    try await device.shutdown()
  }

  func testStorageThatIsNotThereYetIsSaidClearlyAndWorksLater() async throws {
    let connectionString = try hub.createDevice("locked")
    // As before the first unlock: the folder cannot be made or opened.
    let storage = folder.appendingPathComponent("storage")
    try bytes("locked").write(to: storage)
    let options = options("storage/outbox")
    let locked = try await whimbrelError { try await DeviceClient.open(connectionString, options: options) }
    guard case .journalIO(let failure) = locked else { return XCTFail("\(locked)") }
    XCTAssertFalse(failure.reason.isEmpty)
    XCTAssertEqual(locked.retry, .afterReopen)

    try FileManager.default.removeItem(at: storage)
    try FileManager.default.createDirectory(at: storage, withIntermediateDirectories: true)
    let device = try await DeviceClient.open(connectionString, options: options)
    try await until("a connection") { try device.connection == .connected }
    try await device.suspend(budget: .seconds(60))

    // Locked again while the app is away.
    let aside = folder.appendingPathComponent("aside")
    try FileManager.default.moveItem(at: storage, to: aside)
    try bytes("locked").write(to: storage)
    for _ in 0..<2 {
      let error = try await whimbrelError { try await device.resume() }
      guard case .journalIO = error else { return XCTFail("\(error)") }
      XCTAssertEqual(try device.connection, .suspended)
    }
    try FileManager.default.removeItem(at: storage)
    try FileManager.default.moveItem(at: aside, to: storage)
    try await device.resume()
    let outcome = try await device.send(.telemetry(bytes("x"))).outcome()
    guard case .delivered = outcome else { return XCTFail("\(outcome)") }
    try await device.shutdown()
  }

  func testNothingIsHeldWhileSuspended() async throws {
    let device = try Process(hub, id: "held", folder: folder)
    defer { device.end() }
    try await device.line("state connected")
    device.say("held")
    let open = try await device.line("held ")
    XCTAssertFalse(open.hasPrefix("held 0 threads 0 files"), open)
    var counts: [Int] = []
    for round in 0..<4 {
      device.say("send \(round)")
      try await device.line("outcome delivered")
      device.say("suspend 10000")
      try await device.line("left 0")
      // Threads end a moment after they were told to.
      try await until("nothing to be held") {
        device.say("held")
        return try await device.line("held ").hasPrefix("held 0 threads 0 files")
      }
      device.say("threads")
      counts.append(Int(try await device.line("threads ").split(separator: " ")[1]) ?? 0)
      device.say("resume")
      try await device.line("resumed")
    }
    // Whatever their names: rounds leave no threads behind. The first ones may still start some of Swift's own.
    XCTAssertLessThanOrEqual(counts[3], counts[1] + 1, "\(counts)")
  }

  func testAProcessThatWasStoppedPastTheKeepAliveSaysSo() async throws {
    let device = try Process(hub, id: "stopped", folder: folder)
    defer { device.end() }
    try await device.line("state connected")
    try await until("the hub to see it") { try hub.isConnected("stopped") }
    device.signal(SIGSTOP)
    // The hub gives up one and a half times the keep-alive later.
    try await until("the hub to miss it") { try !hub.isConnected("stopped") }
    // Asked at the moment it goes on, it must have seen that the link is gone before it says that anything was delivered.
    device.say("send later")
    device.signal(SIGCONT)
    let seen = try await device.lines(until: "outcome delivered")
    let states = seen.filter { $0.hasPrefix("state ") }
    XCTAssertFalse(states.isEmpty, "it must say that the link was lost")
    XCTAssertFalse(states[0].hasPrefix("state connected"), "\(states)")
    XCTAssertEqual(states.last, "state connected", "\(states)")
    XCTAssertEqual(try hub.events(of: "stopped").count, 1)
  }
}

/// The test device as a process of its own.
private final class Process {
  private let process = Foundation.Process()
  private let input = Pipe()
  private let output = Pipe()
  private var iterator: AsyncStream<String>.AsyncIterator

  init(_ hub: LocalHub, id: String, folder: URL) throws {
    // It is built beside the tests.
    let tests = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
    process.executableURL = tests.deletingLastPathComponent().appendingPathComponent("WhimbrelTestDevice")
    process.arguments = [try hub.createDevice(id), hub.server, folder.appendingPathComponent("outbox").path]
    process.standardInput = input
    process.standardOutput = output
    let reading = output.fileHandleForReading
    let lines = AsyncStream<String> { found in
      // Reading blocks, so it has a thread of its own.
      Thread {
        var rest = Data()
        while case let chunk = reading.availableData, !chunk.isEmpty {
          rest.append(chunk)
          while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            found.yield(String(decoding: rest[rest.startIndex..<end], as: UTF8.self))
            rest.removeSubrange(rest.startIndex...end)
          }
        }
        found.finish()
      }.start()
    }
    iterator = lines.makeAsyncIterator()
    try process.run()
    // What never says what it should is not waited for for ever.
    let id = process.processIdentifier
    DispatchQueue.global().asyncAfter(deadline: .now() + 120) { kill(id, SIGKILL) }
  }

  func say(_ line: String) {
    input.fileHandleForWriting.write(Data("\(line)\n".utf8))
  }

  /// The next line that begins like this.
  @discardableResult
  func line(_ beginning: String) async throws -> String {
    try await lines(until: beginning).last ?? ""
  }

  /// The lines up to the one that begins like this.
  func lines(until beginning: String) async throws -> [String] {
    var seen: [String] = []
    while let line = await iterator.next() {
      seen.append(line)
      if line.hasPrefix(beginning) { return seen }
    }
    throw Failure(description: "the device ended without saying \(beginning): \(seen)")
  }

  func signal(_ signal: Int32) {
    kill(process.processIdentifier, signal)
  }

  func end() {
    signal(SIGCONT)
    signal(SIGKILL)
    try? input.fileHandleForWriting.close()
  }
}

private struct Failure: Error {
  let description: String
}

extension LocalHub {
  fileprivate func isConnected(_ deviceID: String) throws -> Bool {
    let text = try whimbrel("device", "show", deviceID, "--json")
    let device = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    return (device?["connection"] as? [String: Any])?["connected"] as? Bool == true
  }
}
