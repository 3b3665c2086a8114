// A device sends a measurement, and a back end reads it.

import Foundation
import Whimbrel
import WhimbrelTesting

struct Reading: Encodable {
  let t: Double
}

// A hub for this program. In earnest it is `whimbrel hub` somewhere, or Azure IoT Hub.
let hub = try LocalHub()
defer { hub.close() }
let connectionString = try hub.createDevice("thermostat-1")

// Opening does not wait for the network. The outbox is a folder that survives this process.
let outbox = FileManager.default.temporaryDirectory.appendingPathComponent("outbox-\(UUID().uuidString)")
defer { try? FileManager.default.removeItem(at: outbox) }
var options = DeviceOptions(outboxDirectory: outbox)
options.server = hub.server
let device = try await DeviceClient.open(connectionString, options: options)

// When this returns, the message is on the disk: it is Whimbrel's job now.
let receipt = try await device.send(.json(Reading(t: 21.5)).property("room", "attic").expires(in: .seconds(3600)))

// Nobody has to wait for the outcome; it can also be asked for later, by receipt.messageID.
let outcome = try await receipt.outcome()
guard case .delivered(let partition?, let sequence?) = outcome else { fatalError("it ended as \(outcome)") }
print("stored in partition \(partition) as number \(sequence)")
try await device.shutdown()

// What the back end sees.
for event in try hub.events(of: "thermostat-1") {
  let properties = event["properties"] as? [String: String]
  print("thermostat-1 in the \(properties?["room"] ?? "?"): \(event["body"] ?? "nothing")")
  let system = event["system"] as? [String: Any]
  guard event["sequence"] as? UInt64 == sequence, system?["content_type"] as? String == "application/json" else {
    fatalError("this is not what was sent: \(event)")
  }
}
