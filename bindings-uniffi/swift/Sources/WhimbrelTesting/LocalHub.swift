#if os(Linux) || os(macOS)

import Foundation

/// A hub on free ports of this machine, for tests. It is the `whimbrel` command as a process of its own.
///
/// ```swift
/// let hub = try LocalHub()
/// defer { hub.close() }
/// let device = try await DeviceClient.open(try hub.createDevice("thermostat-1"), options: hub.options(outbox: folder))
/// ```
///
/// The hub ends with the process that started it, also when that is killed. Calls block, for 0.1 s or so. One object may be used by
/// several threads.
public final class LocalHub: @unchecked Sendable {
  /// Why a hub did not do what it was told.
  public struct Failure: Error, CustomStringConvertible {
    /// What happened, with what the hub printed.
    public let description: String
  }

  /// Where the data is. What is in it is the hub's.
  public let folder: URL

  private let program: String
  private let settings: [String: String]
  // For the whole of a start or stop: they follow one another.
  private let lock = NSRecursiveLock()
  private var hub: Child?
  private var addresses: [String: String] = [:]
  private var service: [String: Any] = [:]
  private static let listeners = ["mqtt", "mqtts", "amqp", "amqps", "http", "https"]

  /// Starts a hub with its data in a temporary folder.
  ///
  /// - Parameters:
  ///   - settings: By their names in `hub.toml`, such as `["command-lock": "1s"]`.
  ///   - program: The `whimbrel` command; else what the variable `WHIMBREL_BINARY` says, else the one in `PATH`.
  public init(settings: [String: String] = [:], program: String? = nil) throws {
    self.program = try program ?? LocalHub.findProgram()
    self.settings = settings
    let unique = UUID().uuidString
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("whimbrel-hub-\(unique)")
    try start()
  }

  deinit {
    close()
  }

  /// Starts it again behind ``stop()`` or ``kill()``, with the same ports and data. Nothing when it runs.
  public func start() throws {
    try lock.withLock {
      if hub?.isRunning == true { return }
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      var arguments = ["hub", "--while-stdin", "--data", data.path]
      for listener in LocalHub.listeners where settings[listener] == nil {
        arguments.append("--\(listener)=\(addresses[listener] ?? "127.0.0.1:0")")
      }
      arguments += settings.sorted { $0.key < $1.key }.map { "--\($0.key)=\($0.value)" }
      let started = try Child(program, arguments, output: log, errors: log)
      hub = started
      service = try wait(for: started)
      for listener in LocalHub.listeners {
        let address = service[listener] as? String
        addresses[listener] = address.map { $0.split(separator: "/").last.map(String.init) ?? $0 } ?? "off"
      }
    }
  }

  /// Stops it as an operator would, and returns when it has ended. Nothing when it does not run.
  public func stop() {
    lock.withLock {
      hub?.end(SIGTERM)
      hub = nil
    }
  }

  /// Ends it with no warning, as a power cut would. What it acknowledged it has.
  public func kill() {
    lock.withLock {
      hub?.end(SIGKILL)
      hub = nil
    }
  }

  /// Ends it for good and deletes its data.
  public func close() {
    kill()
    try? FileManager.default.removeItem(at: folder)
  }

  /// Creates a device with keys made by the hub; gives its connection string.
  public func createDevice(_ deviceID: String) throws -> String {
    try whimbrel("device", "add", deviceID)
  }

  /// Where it listens, such as `127.0.0.1:41234`; `listener` is mqtt, mqtts, amqp, amqps, http or https.
  public func address(_ listener: String = "mqtt") -> String {
    lock.withLock { addresses[listener] ?? "off" }
  }

  /// The server for `DeviceOptions.server` that leads to this hub, without TLS.
  public var server: String { "mqtt://\(address())" }

  /// What `whimbrel ARGUMENTS` prints about this hub, without white space at its ends: the back end's half of a test, such as
  /// `whimbrel("monitor", "--json")` or `whimbrel("command", "send", "thermostat-1", "reboot")`.
  ///
  /// - Throws: ``Failure`` with what it printed when it ends badly.
  @discardableResult
  public func whimbrel(_ arguments: String...) throws -> String {
    let (status, output, errors) = try run(arguments)
    if status != 0 {
      throw Failure(description: "whimbrel \(arguments.joined(separator: " ")) ended with \(status): \(errors)")
    }
    return output
  }

  private func run(_ arguments: [String]) throws -> (Int32, output: String, errors: String) {
    let place = folder.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: place) }
    let output = place.appendingPathComponent("output")
    let errors = place.appendingPathComponent("errors")
    let child = try Child(program, arguments + ["--data", data.path], output: output, errors: errors)
    let status = child.wait()
    func text(_ file: URL) throws -> String {
      try String(contentsOf: file, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    }
    return (status, try text(output), try text(errors))
  }

  /// The events the hub has of this device, or of all, each partition in its order: `whimbrel monitor --json`.
  public func events(of deviceID: String? = nil) throws -> [[String: Any]] {
    let text =
      if let deviceID {
        try whimbrel("monitor", "--json", "--from", "beginning", "--device", deviceID)
      } else {
        try whimbrel("monitor", "--json", "--from", "beginning")
      }
    return try text.split(separator: "\n").map { line in
      guard let event = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] else {
        throw Failure(description: "this is no event: \(line)")
      }
      return event
    }
  }

  /// Waits until this command to this device has ended, and says how in the words of feedback: `Success`, `Rejected`, `Expired`,
  /// `DeliveryCountExceeded` or `Purged`.
  public func outcome(of messageID: String, to deviceID: String) throws -> String {
    // That a command was not completed is no failure here, as it is for the command line.
    let (status, output, errors) = try run(["command", "outcome", deviceID, messageID, "--wait", "--json"])
    let answer = try? JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any]
    guard let outcome = answer?["outcome"] as? String else {
      throw Failure(description: "the outcome of \(messageID) is not known (\(status)): \(errors)")
    }
    return outcome
  }

  /// The `whimbrel` command: what the variable `WHIMBREL_BINARY` says, else the one in `PATH`.
  public static func findProgram() throws -> String {
    let environment = ProcessInfo.processInfo.environment
    if let told = environment["WHIMBREL_BINARY"] { return told }
    for folder in (environment["PATH"] ?? "").split(separator: ":") {
      let file = "\(folder)/whimbrel"
      if FileManager.default.isExecutableFile(atPath: file) { return file }
    }
    throw Failure(description: "there is no whimbrel command in PATH, and WHIMBREL_BINARY names none")
  }

  private var data: URL { folder.appendingPathComponent("data") }
  private var log: URL { folder.appendingPathComponent("hub.log") }

  /// The hub writes the file when it listens; one with another process id is of an earlier life.
  private func wait(for child: Child) throws -> [String: Any] {
    let deadline = ContinuousClock.now + .seconds(60)
    let file = data.appendingPathComponent("service.json")
    while true {
      if let content = try? Data(contentsOf: file),
        let service = try? JSONSerialization.jsonObject(with: content) as? [String: Any],
        service["pid"] as? Int == Int(child.id)
      {
        return service
      }
      if !child.isRunning || ContinuousClock.now > deadline {
        child.end(SIGKILL)
        let printed = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
        throw Failure(description: "the hub did not start: \(printed.suffix(4_000))")
      }
      usleep(5_000)
    }
  }
}

#endif
