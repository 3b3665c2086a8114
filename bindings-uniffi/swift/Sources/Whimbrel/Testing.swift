internal import WhimbrelNative

/// Has the native half panic inside a call, to test that nothing but ``WhimbrelError/internal(_:)`` comes of it.
@_spi(Testing) public func provokePanic() async throws {
  try await cancellable { try await WhimbrelNative.panicLater(text: "a panic of a test", cancel: $0) }
}

/// Every kind of error the native half knows: name and number.
@_spi(Testing) public func errorKinds() -> [(name: String, code: Int, retry: String)] {
  WhimbrelNative.errorKinds().map { ($0.name, Int($0.code), $0.retry) }
}
