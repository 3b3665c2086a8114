import Foundation
import Whimbrel
import WhimbrelTesting

// A hub for this program. In earnest it is `whimbrel hub` somewhere, or Azure IoT Hub.
let hub = try LocalHub()
let connectionString = try hub.createDevice("thermostat-1")

var options = DeviceOptions(outboxDirectory: URL(fileURLWithPath: "outbox"))
options.server = hub.server
let device = try await DeviceClient.open(connectionString, options: options)

// Returns when the message is on disk, network or not.
let receipt = try await device.send(.json(["t": 21.5]).property("room", "attic"))
print(try await receipt.outcome())  // Optional: how it ended.

try hub.whimbrel("command", "send", "thermostat-1", "reboot")
for try await command in device.inbox() {
  print(String(decoding: command.body, as: UTF8.self))
  try await command.complete()
  break
}
try await device.shutdown()
hub.close()
