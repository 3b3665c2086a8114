// What the programs share: the command line, the figures, the line that tells them.

import Foundation
import Whimbrel

/// The command line, the same for every subject.
public struct Given: Sendable {
  public var host = "127.0.0.1"
  public var port = 0
  public var messages = 100_000
  public var bytes = 256
  public var concurrency = 1_000
  public var batch = 512
  public var outbox = ""

  public init() {
    var words = CommandLine.arguments.dropFirst().makeIterator()
    while let name = words.next(), let value = words.next() {
      let number = Int(value) ?? 0
      switch name {
      case "--host": host = value
      case "--port": port = number
      case "--messages": messages = number
      case "--bytes": bytes = number
      case "--concurrency": concurrency = number
      case "--batch": batch = number
      case "--outbox": outbox = value
      default: fatalError("there is no option \(name)")
      }
    }
  }

  public var body: Data { Data(repeating: UInt8(ascii: "x"), count: bytes) }

  /// Opens the client, the outbox always on the disk, and waits until it is connected.
  public func open() async throws -> DeviceClient {
    guard !outbox.isEmpty else { fatalError("--outbox is missing: the folder for the outbox") }
    var options = DeviceOptions(outboxDirectory: URL(fileURLWithPath: outbox))
    options.server = "mqtt://\(host):\(port)"
    let device = try await DeviceClient.open(connectionString, options: options)
    for try await state in device.connectionChanges() where state == .connected { break }
    return device
  }

  /// Measures the work; every message has been delivered when it is over, or the run does not count.
  public func measure(_ work: (DeviceClient) async throws -> Void) async throws {
    let device = try await open()
    let cpu = processorSeconds()
    let start = ContinuousClock.now
    try await work(device)
    try await device.flush(deadline: .seconds(120))
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    let cpuSeconds = processorSeconds() - cpu
    let account = try device.account()
    guard account.delivered == UInt64(messages) else { fatalError("not everything was delivered: \(account)") }
    try await device.shutdown()
    tell([
      "messages": messages, "seconds": seconds, "cpu_seconds": cpuSeconds, "peak_rss_kib": peakKibibytes(),
      "lag_us": NSNull(), "version": DeviceClient.version, "runtime": "Swift 6",
    ])
  }
}

public let connectionString = "HostName=bench.example;DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"

/// Prints a line.
public func tell(_ line: [String: Any]) {
  print(String(decoding: (try? JSONSerialization.data(withJSONObject: line)) ?? Data(), as: UTF8.self))
}

private func usage() -> rusage {
  var usage = rusage()
  #if canImport(Glibc)
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
  #else
    getrusage(RUSAGE_SELF, &usage)
  #endif
  return usage
}

private func processorSeconds() -> Double {
  let usage = usage()
  func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
  return seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

private func peakKibibytes() -> Int { Int(usage().ru_maxrss) }
