import Foundation
internal import WhimbrelNative

/// Those who wait until their message is safe.
///
/// The native half takes a message in on the calling thread, and tells in batches what became of them: one wake-up for many
/// messages costs less than one for each. One task fetches the batches, for as long as somebody waits.
final class Sends: @unchecked Sendable {
  private typealias Waiting = CheckedContinuation<WhimbrelNative.Receipt, any Error>

  private let native: WhimbrelNative.Device
  private let lock = NSLock()
  // Under the lock.
  private var waiting: [UInt64: Waiting] = [:]
  private var lastToken: UInt64 = 0
  private var isFetching = false

  init(_ native: WhimbrelNative.Device) {
    self.native = native
  }

  func send(_ body: Data, _ draft: WhimbrelNative.Draft?) async throws -> WhimbrelNative.Receipt {
    try Task.checkCancellation()
    let token = lock.withLock {
      lastToken += 1
      return lastToken
    }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { (one: Waiting) in
        lock.withLock { waiting[token] = one }
        do {
          try native.accept(token: token, body: body, draft: draft)
        } catch let error as WhimbrelNative.Failure {
          return leave(token, translation(of: error))
        } catch {
          return leave(token, error)
        }
        // When it was cancelled before it waited, nobody else says so.
        if Task.isCancelled { leave(token, CancellationError()) }
        fetch()
      }
    } onCancel: {
      leave(token, CancellationError())
    }
  }

  /// Ends the waiting of one, unless it has ended.
  private func leave(_ token: UInt64, _ error: any Error) {
    lock.withLock { waiting.removeValue(forKey: token) }?.resume(throwing: error)
  }

  /// Has somebody fetch what becomes of the messages, as long as anybody waits.
  private func fetch() {
    let starts = lock.withLock {
      defer { isFetching = true }
      return !isFetching
    }
    guard starts else { return }
    Task.detached {
      repeat {
        do {
          try await self.native.storedReady(cancel: nil)
          self.tell(self.native.takeStored())
        } catch {
          self.fail(error)
        }
      } while self.goesOn()
    }
  }

  private func goesOn() -> Bool {
    lock.withLock {
      isFetching = !waiting.isEmpty
      return isFetching
    }
  }

  private func tell(_ stored: [WhimbrelNative.Stored]) {
    // Whoever is missing was cancelled.
    var told: [(Waiting, Result<WhimbrelNative.Receipt, any Error>)] = []
    told.reserveCapacity(stored.count)
    lock.withLock {
      for one in stored {
        switch one {
        case .safe(let token, let receipt):
          if let one = waiting.removeValue(forKey: token) { told.append((one, .success(receipt))) }
        case .failed(let token, let failure):
          if let one = waiting.removeValue(forKey: token) { told.append((one, .failure(translation(of: failure)))) }
        }
      }
    }
    for (one, result) in told { one.resume(with: result) }
  }

  private func fail(_ error: any Error) {
    let all = lock.withLock {
      defer { waiting.removeAll() }
      return Array(waiting.values)
    }
    let translated = (error as? WhimbrelNative.Failure).map(translation(of:)) ?? error
    for one in all { one.resume(throwing: translated) }
  }
}
