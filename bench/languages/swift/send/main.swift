// Many tasks that send one message after the other.

import WhimbrelBench
import Whimbrel

let given = Given()
let message = Message.telemetry(given.body)
try await given.measure { device in
  let tasks = min(given.concurrency, given.messages)
  try await withThrowingTaskGroup(of: Void.self) { group in
    for index in 0..<tasks {
      let share = given.messages / tasks + (index < given.messages % tasks ? 1 : 0)
      group.addTask {
        for _ in 0..<share { try await device.send(message) }
      }
    }
    try await group.waitForAll()
  }
}
