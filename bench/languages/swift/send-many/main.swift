// One task that sends batches.

import WhimbrelBench
import Whimbrel

let given = Given()
let message = Message.telemetry(given.body)
try await given.measure { device in
  var left = given.messages
  while left > 0 {
    let count = min(given.batch, left)
    try await device.sendMany(Array(repeating: message, count: count))
    left -= count
  }
}
