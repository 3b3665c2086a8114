// A device program for the tests: opens a client, tells each connection state as a line, and does what the lines of its input say.

import Foundation
import Whimbrel

/// Whole lines, at once.
func say(_ line: String) {
  FileHandle.standardOutput.write(Data("\(line)\n".utf8))
}

func threads() -> [String] {
  let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
  return tasks.compactMap { try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8) }
    .map { $0.trimmingCharacters(in: .whitespacesAndNewlines) }
}

func openFiles() -> [String] {
  let files = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
  return files.compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)") }
}

// What comes from who started this.
let inherited = Set(openFiles())
let arguments = CommandLine.arguments
let (connectionString, server, outbox) = (arguments[1], arguments[2], arguments[3])
var options = DeviceOptions(outboxDirectory: URL(fileURLWithPath: outbox))
options.server = server
options.keepAlive = .seconds(1)
options.backoffMin = .milliseconds(10)
options.backoffMax = .milliseconds(100)
let device = try await DeviceClient.open(connectionString, options: options)

Task.detached {
  for try await state in device.connectionChanges() { say("state \(state)") }
  say("states end")
}

let input = AsyncStream<String> { lines in
  // Waiting for input holds a thread: one that is nobody else's.
  Thread {
    while let line = readLine() { lines.yield(line) }
    lines.finish()
  }.start()
}
for await line in input {
  let words = line.split(separator: " ").map(String.init)
  do {
    switch words[0] {
    case "send":
      let receipt = try await device.send(.telemetry(Data(words[1].utf8)))
      say("outcome \(try await receipt.outcome())")
    case "queue":
      try await device.send(.telemetry(Data(words[1].utf8)))
      say("queued \(try device.account().queued)")
    case "suspend": say("left \(try await device.suspend(budget: .milliseconds(Int(words[1]) ?? 0)))")
    case "resume":
      try await device.resume()
      say("resumed")
    case "held":
      let own = threads().filter { $0.hasPrefix("whimbrel") || $0.hasPrefix("tokio") }
      let files = openFiles().filter { ($0.contains(outbox) || $0.hasPrefix("socket:")) && !inherited.contains($0) }
      say("held \(own.count) threads \(files.count) files: \(own.sorted() + files.sorted())")
    case "threads": say("threads \(threads().count) \(threads().sorted().joined(separator: ","))")
    default: say("what is \(line)?")
    }
  } catch let error as WhimbrelError {
    say("error \(error.failure.kind)")
  } catch {
    say("error \(error)")
  }
}
try await device.shutdown()
