// A back end sends commands to a device, which deals with one and rejects another; the back end sees how they ended.

import Foundation
import Whimbrel
import WhimbrelTesting

let hub = try LocalHub()
defer { hub.close() }
let connectionString = try hub.createDevice("valve-2")

// The device is away. Its commands wait at the hub.
try hub.whimbrel("command", "send", "valve-2", "open", "--id", "c-1")
try hub.whimbrel("command", "send", "valve-2", "sing", "--id", "c-2")
print("sent c-1 and c-2")

var options = DeviceOptions.inMemory
options.server = hub.server
let device = try await DeviceClient.open(connectionString, options: options)
var settled = 0
for try await command in device.inbox() {
  let asked = String(decoding: command.body, as: UTF8.self)
  print("the device is asked to \(asked)")
  // Nothing is acknowledged before the program says so, and what is completed never comes again.
  if asked == "open" {
    try await command.complete()
  } else {
    try await command.reject()
  }
  settled += 1
  if settled == 2 { break }
}
try await device.shutdown()

for (id, expected) in [("c-1", "Success"), ("c-2", "Rejected")] {
  let outcome = try hub.outcome(of: id, to: "valve-2")
  print("\(id) ended: \(outcome)")
  guard outcome == expected else { fatalError("\(id) was to end as \(expected)") }
}
