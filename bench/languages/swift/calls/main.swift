// What one call across the border costs without I/O.

import WhimbrelBench
import Foundation
import Whimbrel

let given = Given()
var options = DeviceOptions.inMemory
options.server = "mqtt://127.0.0.1:9"
options.overflow = .dropOldest
options.closeDeadline = .zero
let device = try await DeviceClient.open(connectionString, options: options)
let receipt = try await device.send(.telemetry(given.body))
let message = Message.telemetry(given.body)
let refused = message.expires(in: .seconds(-1))

/// Nanoseconds of a call, the median of nine series.
func cost(_ count: Int, _ call: () async throws -> Void) async throws -> Int {
  var series: [Double] = []
  for _ in 0..<9 {
    let start = ContinuousClock.now
    for _ in 0..<count { try await call() }
    series.append((ContinuousClock.now - start) / .nanoseconds(1) / Double(count))
  }
  return Int(series.sorted()[4])
}

let nanoseconds: [String: Int] = [
  "message_id": try await cost(20_000) { _ = receipt.messageID },
  "receipt_state": try await cost(5_000) { _ = try receipt.state() },
  "account": try await cost(2_000) { _ = try device.account() },
  "refused_send": try await cost(2_000) { _ = try? await device.send(refused) },
  "whole_send": try await cost(500) { try await device.send(message) },
]
try await device.shutdown()
tell(["nanoseconds": nanoseconds])
