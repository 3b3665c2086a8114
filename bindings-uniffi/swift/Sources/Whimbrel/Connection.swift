import Foundation
internal import WhimbrelNative

/// What the link to the hub is doing.
public enum ConnectionState: Sendable, Hashable {
  /// Not connected; the next attempt is planned. Says why the last one ended, for people.
  case disconnected(reason: String?)
  /// Trying.
  case connecting
  /// Connected.
  case connected
  /// The hub refused the credentials; attempts go on slowly.
  case unauthorized(reason: String)
  /// Suspended by the program, until it resumes.
  case suspended
  /// Shut down by the program.
  case closed
}

/// The states of the link: the present one first, then each change. A slow reader sees the newest one, not every one.
///
/// Ends behind ``ConnectionState/closed``. A cancelled wait throws `CancellationError`; iterate again for the present state.
public struct ConnectionChanges: AsyncSequence, Sendable {
  public typealias Element = ConnectionState
  let native: WhimbrelNative.ConnectionChanges

  public func makeAsyncIterator() -> AsyncIterator {
    AsyncIterator(states: self)
  }

  /// The next state; nil behind the last one.
  public func next() async throws -> ConnectionState? {
    try await pulled(
      take: {
        switch try native.take() {
        case .nothing: Optional<ConnectionState?>.none
        case .end: .some(nil)
        case .state(let state): .some(ConnectionState(state))
        }
      }, ready: { try await native.ready(cancel: $0) }, passOn: { native.passOn() })
  }

  /// One reader of the sequence it was made by.
  public struct AsyncIterator: AsyncIteratorProtocol {
    let states: ConnectionChanges

    public mutating func next() async throws -> ConnectionState? {
      try await states.next()
    }
  }
}
