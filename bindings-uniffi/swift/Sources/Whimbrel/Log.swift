import Foundation
internal import WhimbrelNative

/// A line of the library's log. It holds no body and no secret.
public struct LogRecord: Sendable, Hashable {
  /// How serious.
  public let level: LogLevel
  /// Where in the library, such as `whimbrel.device`.
  public let target: String
  /// What happened, with particulars.
  public let message: String
  /// How many lines were lost before this one because nobody took them.
  public let lost: UInt64
}

/// How serious a line is.
public enum LogLevel: Int, Sendable, Comparable, CaseIterable {
  /// Something does not work.
  case error
  /// Something may be wrong.
  case warn
  /// What happens now and then.
  case info
  /// What helps to find a mistake.
  case debug
  /// Everything.
  case trace

  public static func < (left: LogLevel, right: LogLevel) -> Bool { left.rawValue < right.rawValue }
}

/// Hands the library's log, down to `level`, to `handler` from now on; it replaces the one before. Without a handler nobody gets it,
/// which is how it begins.
///
/// The handler is called line by line on a thread of the library, never inside a call of the program, while a client is open and
/// not suspended.
public func setLog(level: LogLevel = .info, _ handler: (@Sendable (LogRecord) -> Void)?) {
  WhimbrelNative.setLog(level: level.native, sink: handler.map(Sink.init))
}

private final class Sink: WhimbrelNative.LogSink {
  private let handler: @Sendable (LogRecord) -> Void

  init(_ handler: @escaping @Sendable (LogRecord) -> Void) {
    self.handler = handler
  }

  func log(record: WhimbrelNative.LogRecord) throws {
    handler(
      LogRecord(
        level: LogLevel(record.level), target: record.target, message: record.message, lost: record.lost))
  }
}

extension LogLevel {
  fileprivate init(_ native: WhimbrelNative.LogLevel) {
    self =
      switch native {
      case .error: .error
      case .warn: .warn
      case .info: .info
      case .debug: .debug
      case .trace: .trace
      }
  }

  fileprivate var native: WhimbrelNative.LogLevel {
    switch self {
    case .error: .error
    case .warn: .warn
    case .info: .info
    case .debug: .debug
    case .trace: .trace
    }
  }
}
