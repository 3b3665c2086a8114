// What an app on a phone does: it goes to the background and comes back, and nothing is lost on the way.
//
// The class below is what would be in the app. The rest plays the system that runs it: on iOS, `scenePhase` and a background task
// say when; here, a script does.

import Foundation
import Whimbrel
import WhimbrelTesting

/// The part of an app that speaks to the hub.
final class Uplink: Sendable {
  private let device: DeviceClient

  /// At the start of the app. Before the first unlock of the phone its files cannot be read: then this fails with `journalIO`, and the
  /// app tries again when the system says that protected data is available.
  init(_ connectionString: String, options: DeviceOptions) async throws {
    device = try await DeviceClient.open(connectionString, options: options)
  }

  /// A step was counted. Safe when this returns, whatever happens to the app then.
  func record(steps: Int) async throws {
    try await device.send(.json(["steps": steps]).expires(in: .seconds(24 * 3600)))
  }

  /// The app goes to the background, and the system gives it this long (`UIApplication.backgroundTimeRemaining`, less a little).
  /// Returns how many records are left for the next time.
  func goToBackground(budget: Duration) async throws -> Int {
    try await device.suspend(budget: budget)
  }

  /// The app is back.
  func comeToForeground() async throws {
    try await device.resume()
  }

  /// What to show: an honest word about the link.
  var word: String {
    switch try? device.connection {
    case .connected: "online"
    case .suspended: "asleep"
    case .unauthorized: "please sign in again"
    default: "offline, \((try? device.account().queued) ?? 0) waiting"
    }
  }

  /// Commands of the back end, for as long as the app lives; suspension only pauses them.
  func follow(_ handle: @Sendable (String) -> Void) async throws {
    for try await command in device.inbox() {
      handle(String(decoding: command.body, as: UTF8.self))
      try await command.complete()
    }
  }

  /// The user signed out.
  func end() async throws {
    try await device.shutdown()
  }
}

let hub = try LocalHub()
defer { hub.close() }
let outbox = FileManager.default.temporaryDirectory.appendingPathComponent("outbox-\(UUID().uuidString)")
defer { try? FileManager.default.removeItem(at: outbox) }
var options = DeviceOptions(outboxDirectory: outbox)
options.server = hub.server
options.backoffMin = .milliseconds(10)
options.backoffMax = .milliseconds(100)
let connectionString = try hub.createDevice("phone-1")
let uplink = try await Uplink(connectionString, options: options)

let (commands, arrived) = AsyncStream<String>.makeStream()
let following = Task { try await uplink.follow { arrived.yield($0) } }

// In the foreground.
for steps in 1...10 { try await uplink.record(steps: steps) }
print("in the foreground: \(uplink.word)")

// To the background, with time enough: everything is delivered.
let delivered = try await uplink.goToBackground(budget: .seconds(30))
print("in the background: \(uplink.word), \(delivered) left")
guard delivered == 0 else { fatalError("there was time enough") }

// While it sleeps, the back end wants something.
try hub.whimbrel("command", "send", "phone-1", "show the map")
try await uplink.comeToForeground()
let command = await commands.first { _ in true }
print("in the foreground again: asked to \(command ?? "nothing")")
guard command == "show the map" else { fatalError("the command was lost") }

// In a tunnel, and to the background with no time at all: what is recorded stays in the outbox.
hub.stop()
for steps in 11...20 { try await uplink.record(steps: steps) }
let left = try await uplink.goToBackground(budget: .milliseconds(50))
print("in the background, in a tunnel: \(left) left")
guard left == 10 else { fatalError("\(left) are left of 10") }

// Back, and out of the tunnel.
try hub.start()
try await uplink.comeToForeground()
let rest = try await uplink.goToBackground(budget: .seconds(60))
print("out of the tunnel: \(rest) left")
try await uplink.end()
try await following.value

let count = try hub.events(of: "phone-1").count
guard rest == 0, count == 20 else { fatalError("the back end has \(count) of 20 records") }
print("the back end has all \(count) records")
