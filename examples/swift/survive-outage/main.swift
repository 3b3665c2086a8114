// The hub is away and the device program is restarted; nothing is lost, nothing comes twice, the order is kept.

import Foundation
import Whimbrel
import WhimbrelTesting

let messages = 500
let hub = try LocalHub()
defer { hub.close() }
let connectionString = try hub.createDevice("pump-3")
let outbox = FileManager.default.temporaryDirectory.appendingPathComponent("outbox-\(UUID().uuidString)")
defer { try? FileManager.default.removeItem(at: outbox) }
var options = DeviceOptions(outboxDirectory: outbox)
options.server = hub.server
options.backoffMin = .milliseconds(10)
options.backoffMax = .milliseconds(100)
options.closeDeadline = .zero

hub.stop()
print("the hub is away")

// Two lives of the device program: each sends its half and ends, with no hub in sight.
for half in [0..<messages / 2, messages / 2..<messages] {
  let device = try await DeviceClient.open(connectionString, options: options)
  try await device.sendMany(half.map { .telemetry(Data("\($0)".utf8)) })
  print("the device has \(try device.account().queued) messages in its outbox and is restarted")
  try await device.shutdown()
}

try hub.start()
print("the hub is back")
let device = try await DeviceClient.open(connectionString, options: options)
let left = try await device.flush(deadline: .seconds(60))
let account = try device.account()
print("accepted \(account.accepted) = delivered \(account.delivered) + queued \(left)")
try await device.shutdown()

let read = try hub.events(of: "pump-3").map { event in "\((event["body"] as? [String: Any])?.values.first ?? "")" }
guard read == (0..<messages).map(String.init), left == 0, account.delivered == UInt64(messages) else {
  fatalError("\(left) messages are left, and these events came: \(read)")
}
print("read \(read.count) events, each once, in order")
