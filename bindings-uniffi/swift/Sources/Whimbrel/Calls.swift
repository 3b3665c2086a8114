import Foundation
internal import WhimbrelNative

/// Makes a call that waits. When the task is cancelled, so is the call, and it throws `CancellationError` unless it has its result.
func cancellable<Result: Sendable>(
  _ call: @Sendable (WhimbrelNative.CancelToken) async throws -> Result
) async throws -> Result {
  try Task.checkCancellation()
  let token = WhimbrelNative.CancelToken()
  return try await withTaskCancellationHandler {
    do {
      return try await call(token)
    } catch let error as WhimbrelNative.Failure {
      throw translation(of: error)
    }
  } onCancel: {
    token.cancel()
  }
}

/// Makes a call that does not wait.
func translated<Result>(_ call: () throws -> Result) throws -> Result {
  do {
    return try call()
  } catch let error as WhimbrelNative.Failure {
    throw translation(of: error)
  }
}

/// Takes the next thing out of a stream. Only the news that there is one travels by itself, never the thing, so none is lost with
/// a wait that is given up.
func pulled<Item>(
  take: () throws -> Item?, ready: @Sendable (WhimbrelNative.CancelToken) async throws -> Void, passOn: () -> Void
) async throws -> Item {
  try Task.checkCancellation()
  while true {
    // Whoever was told that there is something gets it, also when he was cancelled meanwhile.
    if let item = try translated(take) { return item }
    do {
      try await cancellable(ready)
    } catch {
      passOn()
      throw error
    }
  }
}

extension Duration {
  /// Whole milliseconds, rounded up, for a time that is not zero must not become zero; the longest there is for longer ones.
  /// `operation` and `name` say what it is for.
  func milliseconds(_ operation: String, _ name: String) throws -> UInt64 {
    if self < .zero { throw WhimbrelError.invalid(operation, "the \(name) is negative") }
    let (seconds, attoseconds) = components
    let (part, rest) = attoseconds.quotientAndRemainder(dividingBy: 1_000_000_000_000_000)
    let (whole, beyond) = UInt64(seconds).multipliedReportingOverflow(by: 1_000)
    let (sum, over) = whole.addingReportingOverflow(UInt64(part) + (rest > 0 ? 1 : 0))
    return beyond || over ? .max : sum
  }
}

extension Date {
  /// Milliseconds since 1970; the nearest there is for times beyond that.
  var unixMilliseconds: Int64 {
    let milliseconds = (timeIntervalSince1970 * 1_000).rounded()
    return Int64(exactly: milliseconds) ?? (milliseconds < 0 ? .min : .max)
  }

  init(unixMilliseconds: Int64) {
    self.init(timeIntervalSince1970: Double(unixMilliseconds) / 1_000)
  }
}
