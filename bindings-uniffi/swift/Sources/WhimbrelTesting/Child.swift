#if os(Linux) || os(macOS)

import Foundation

/// A program that was started, with its output in files. Its input is open for as long as this process lives.
final class Child {
  let id: pid_t
  private let input: Int32
  private var status: Int32?

  /// `output` and `errors` are files that are added to; they may be the same.
  init(_ program: String, _ arguments: [String], output: URL, errors: URL) throws {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw LocalHub.Failure(description: "no pipe: \(String(cString: strerror(errno)))") }
    // The child gets this end as its input; of the other one, no child may have a copy.
    _ = fcntl(ends[0], F_SETFD, FD_CLOEXEC)
    _ = fcntl(ends[1], F_SETFD, FD_CLOEXEC)
    #if os(Linux)
      var actions = posix_spawn_file_actions_t()
      var attributes = posix_spawnattr_t()
    #else
      var actions: posix_spawn_file_actions_t?
      var attributes: posix_spawnattr_t?
    #endif
    // Threads that run tasks block signals, and a child would inherit that: nothing would stop it but SIGKILL.
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
    posix_spawn_file_actions_addopen(&actions, 1, output.path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, errors.path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
    // What is said about hubs outside is not about this one.
    let kept = ProcessInfo.processInfo.environment.filter {
      !$0.key.hasPrefix("WHIMBREL_HUB_") && $0.key != "WHIMBREL_DATA" && $0.key != "WHIMBREL_CONNECTION_STRING"
        && $0.key != "WHIMBREL_SERVER"
    }
    var environment: [UnsafeMutablePointer<CChar>?] = kept.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { (words + environment).forEach { free($0) } }
    var child = pid_t()
    let failed = posix_spawnp(&child, program, &actions, &attributes, &words, &environment)
    _ = Foundation.close(ends[0])
    input = ends[1]
    id = child
    if failed != 0 {
      status = -1
      throw LocalHub.Failure(description: "\(program) cannot be started: \(String(cString: strerror(failed)))")
    }
  }

  deinit {
    end(SIGKILL)
    _ = Foundation.close(input)
  }

  var isRunning: Bool {
    collect(WNOHANG)
    return status == nil
  }

  /// Waits for its end; its exit code, or minus the signal that ended it.
  func wait() -> Int32 {
    while status == nil { collect(0) }
    return status ?? -1
  }

  func end(_ signal: Int32) {
    if isRunning {
      Foundation.kill(id, signal)
      _ = wait()
    }
  }

  private func collect(_ how: Int32) {
    guard status == nil else { return }
    var said: Int32 = 0
    if waitpid(id, &said, how) == id {
      let signal = said & 0x7f
      status = signal == 0 ? (said >> 8) & 0xff : -signal
    }
  }
}

#endif
