// An alert overtakes all the telemetry that waits.

import Foundation
import Whimbrel
import WhimbrelTesting

let readings = 1_000
let hub = try LocalHub()
defer { hub.close() }
let connectionString = try hub.createDevice("boiler-7")
let outbox = FileManager.default.temporaryDirectory.appendingPathComponent("outbox-\(UUID().uuidString)")
defer { try? FileManager.default.removeItem(at: outbox) }
var options = DeviceOptions(outboxDirectory: outbox)
options.server = hub.server
options.backoffMin = .milliseconds(10)
options.backoffMax = .milliseconds(100)

// While the hub is away, readings pile up. Then something happens.
hub.stop()
let device = try await DeviceClient.open(connectionString, options: options)
try await device.sendMany((0..<readings).map { .telemetry(Data("\($0)".utf8)) })
let alert = try await device.send(.alert(Data("overheat".utf8)).property("limit", "95"))
print("\(readings) readings wait, and behind them an alert")

try hub.start()
let outcome = try await alert.outcome()
print("the alert ended as \(outcome)")
let left = try await device.flush(deadline: .seconds(60))
try await device.shutdown()
guard case .delivered = outcome, left == 0 else { fatalError("\(left) messages are left") }

let read = try hub.events(of: "boiler-7").map { event in "\((event["body"] as? [String: Any])?.values.first ?? "")" }
print("the first of \(read.count) events: \(read.first ?? "none")")
guard read == ["overheat"] + (0..<readings).map(String.init) else {
  fatalError("the alert was not first, or the readings were out of order")
}
