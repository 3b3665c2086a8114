import Foundation
import Whimbrel
import WhimbrelTesting
import XCTest

/// A hub for all tests: each has devices of its own.
let sharedHub: Result<LocalHub, any Error> = Result {
  let hub = try LocalHub()
  atexit { try? sharedHub.get().close() }
  return hub
}

/// A test with a hub, and a folder that goes with it.
class HubTest: XCTestCase {
  var hub: LocalHub!
  var folder: URL!

  override func setUpWithError() throws {
    hub = try sharedHub.get()
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("whimbrel-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  override func tearDownWithError() throws {
    try FileManager.default.removeItem(at: folder)
  }

  /// Options that lead to the hub, with an outbox of this name.
  func options(_ outbox: String = "outbox", hub: LocalHub? = nil) -> DeviceOptions {
    var options = DeviceOptions(outboxDirectory: folder.appendingPathComponent(outbox))
    options.server = (hub ?? self.hub).server
    options.backoffMin = .milliseconds(10)
    options.backoffMax = .milliseconds(100)
    return options
  }

  /// Options that lead nowhere.
  func offline(_ outbox: String = "outbox") -> DeviceOptions {
    var options = options(outbox)
    options.server = "mqtt://127.0.0.1:9"
    options.closeDeadline = .zero
    return options
  }

  /// A device of its own for this test, open until the work is done.
  func withDevice<Result>(
    _ id: String = "d-\(UUID().uuidString)", _ options: DeviceOptions? = nil, hub: LocalHub? = nil,
    _ work: (DeviceClient, String) async throws -> Result
  ) async throws -> Result {
    let connectionString = try (hub ?? self.hub).createDevice(id)
    let device = try await DeviceClient.open(connectionString, options: options ?? self.options(hub: hub))
    do {
      let result = try await work(device, id)
      try await device.shutdown()
      return result
    } catch {
      try? await device.shutdown()
      throw error
    }
  }
}

/// Looks until it is so, for a minute at most.
func until(
  _ what: String, file: StaticString = #filePath, line: UInt = #line, _ look: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + .seconds(60)
  while try await !look() {
    if ContinuousClock.now > deadline {
      XCTFail("expected within a minute: \(what)", file: file, line: line)
      throw CancellationError()
    }
    try await Task.sleep(for: .milliseconds(20))
  }
}

/// The error of this work.
func failure<Result>(
  file: StaticString = #filePath, line: UInt = #line, _ work: () async throws -> Result
) async throws -> any Error {
  do {
    let result = try await work()
    XCTFail("expected an error, got \(result)", file: file, line: line)
    throw Unexpected()
  } catch let error where !(error is Unexpected) {
    return error
  }
}

/// The error of this work, which has to be one of Whimbrel's.
func whimbrelError<Result>(
  file: StaticString = #filePath, line: UInt = #line, _ work: () async throws -> Result
) async throws -> WhimbrelError {
  let error = try await failure(file: file, line: line, work)
  return try XCTUnwrap(error as? WhimbrelError, "\(error)", file: file, line: line)
}

struct Unexpected: Error {}

func bytes(_ text: String) -> Data { Data(text.utf8) }
