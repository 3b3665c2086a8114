// The Swift actor: does with `Whimbrel` what the driver says; see conformance/README.md.

import Foundation
import Whimbrel

/// Writes whole lines.
struct Output: Sendable {
  private let lock = NSLock()

  func say(_ answer: [String: Any]) {
    guard var line = try? JSONSerialization.data(withJSONObject: answer) else {
      fatalError("this is no JSON: \(answer)")
    }
    line.append(UInt8(ascii: "\n"))
    lock.withLock { FileHandle.standardOutput.write(line) }
  }

  func say(_ id: Int, _ error: any Error) {
    switch error {
    case is CancellationError:
      say(["id": id, "cancelled": true])
    case let error as WhimbrelError:
      let failure = error.failure
      let fields: [String: Any] = [
        "kind": failure.kind, "code": failure.code, "retry": failure.retry.rawValue, "operation": failure.operation,
        "message": failure.reason, "details": failure.details,
      ]
      say(["id": id, "error": fields])
    case let mistake as Mistake:
      say(["id": id, "error": ["kind": "ACTOR", "message": mistake.text]])
    default:
      say(["id": id, "error": ["kind": "\(type(of: error))", "message": "\(error)"]])
    }
  }
}

/// Calls that are not over.
final class Running: @unchecked Sendable {
  private let lock = NSLock()
  private var tasks: [Int: Task<Void, Never>] = [:]

  func start(_ id: Int, _ work: @escaping @Sendable () async -> Void) {
    lock.withLock {
      tasks[id] = Task {
        await work()
        self.ended(id)
      }
    }
  }

  func cancel(_ id: Int) {
    lock.withLock { tasks[id] }?.cancel()
  }

  private func ended(_ id: Int) {
    _ = lock.withLock { tasks.removeValue(forKey: id) }
  }
}

let output = Output()
let running = Running()
let things = Things()

// Requests are read on a thread of their own: the tasks have the others.
let reader = Thread {
  while let line = readLine() {
    guard let request = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any],
      let id = request["id"] as? Int, let name = request["call"] as? String
    else {
      fatalError("this is no request: \(line)")
    }
    let said = Said(request["args"] as? [String: Any] ?? [:])
    if name == "cancel" {
      if let of: Int = try? said.number("of") { running.cancel(of) }
      output.say(["id": id, "ok": [String: Any]()])
      continue
    }
    let call = Call(call: name, on: request["on"] as? String ?? "", keep: request["as"] as? String ?? "", said: said)
    running.start(id) {
      do {
        output.say(["id": id, "ok": try await call.perform(things).fields])
      } catch {
        output.say(id, error)
      }
    }
  }
  // Clients that are still open would keep the process; the driver is gone.
  exit(0)
}
reader.start()
while true { sleep(3_600) }
