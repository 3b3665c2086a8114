import Foundation
internal import WhimbrelNative

/// Options of ``DeviceClient/open(_:options:)``. What is nil has its default, which stands in the core and in
/// `docs/semantics.md`. Durations are rounded up to whole milliseconds.
///
/// ```swift
/// var options = DeviceOptions(outboxDirectory: folder)
/// options.keepAlive = .seconds(30)
/// ```
public struct DeviceOptions: Sendable, Hashable {
  /// Folder of the outbox; made if it is not there. One client at a time has it open.
  public var outboxDirectory: URL?
  /// No folder: what waits is lost with the process.
  public var outboxInMemory = false
  /// What happens to a message for which there is no room.
  public var overflow: Overflow?
  /// What `send` waits for.
  public var durability: Durability?
  /// Bytes of the outbox, at most.
  public var outboxMaxBytes: UInt64?
  /// Messages waiting, at most.
  public var outboxMaxMessages: UInt64?
  /// Time to live of messages without one of their own.
  public var outboxMaxAge: Duration?
  /// How often the disk is synced with ``Durability/interval``.
  public var syncInterval: Duration?
  /// Outcomes kept for receipts that ask late.
  public var keptOutcomes: UInt64?
  /// Where to connect instead of what the connection string says, such as `mqtt://127.0.0.1:1883`.
  public var server: String?
  /// MQTT or AMQP over WebSockets.
  public var websocket = false
  /// HTTP proxy to go through.
  public var proxy: String?
  /// File of certificates to trust, PEM, instead of the system's.
  public var caFile: URL?
  /// The same as text.
  public var caPEM: String?
  /// File of this device's certificate chain, PEM; with ``clientKey``.
  public var clientCertificate: URL?
  /// File of its key, PEM.
  public var clientKey: URL?
  /// Certificate chain as text; with ``clientKeyPEM``.
  public var clientCertificatePEM: String?
  /// Key as text.
  public var clientKeyPEM: String?
  /// Allows a server without TLS that is not this machine.
  public var allowUnencrypted = false
  /// How to speak to the hub.
  public var transportProtocol: TransportProtocol?
  /// How soon a dead connection is noticed.
  public var keepAlive: Duration?
  /// How long connecting may take.
  public var connectTimeout: Duration?
  /// How often commands are asked for over HTTP.
  public var pollInterval: Duration?
  /// Messages on their way at a time.
  public var window: UInt16?
  /// Commands held here at a time.
  public var inboxWindow: UInt16?
  /// The shortest time between attempts to connect; with ``backoffMax``.
  public var backoffMin: Duration?
  /// The longest one.
  public var backoffMax: Duration?
  /// How long `shutdown` goes on delivering.
  public var closeDeadline: Duration?
  /// How long a token made from the shared key is good.
  public var tokenLifetime: Duration?

  /// Options with an outbox in this folder.
  public init(outboxDirectory: URL? = nil) {
    self.outboxDirectory = outboxDirectory
  }

  /// Options with an outbox in memory: what waits is lost with the process.
  public static var inMemory: DeviceOptions {
    var options = DeviceOptions()
    options.outboxInMemory = true
    return options
  }

  /// As the native half takes them. Whether a value can be used is judged there.
  func native() throws -> WhimbrelNative.DeviceOptions {
    func ms(_ name: String, _ time: Duration?) throws -> UInt64? {
      try time.map { try $0.milliseconds("device.open", name) }
    }
    return WhimbrelNative.DeviceOptions(
      outbox: outboxDirectory?.path,
      outboxInMemory: outboxInMemory,
      overflow: overflow?.native,
      durability: durability?.native,
      outboxMaxBytes: outboxMaxBytes,
      outboxMaxMessages: outboxMaxMessages,
      outboxMaxAgeMs: try ms("outboxMaxAge", outboxMaxAge),
      syncIntervalMs: try ms("syncInterval", syncInterval),
      keptOutcomes: keptOutcomes,
      server: server,
      websocket: websocket,
      proxy: proxy,
      caFile: caFile?.path,
      caPem: caPEM,
      clientCertificate: clientCertificate?.path,
      clientKey: clientKey?.path,
      clientCertificatePem: clientCertificatePEM,
      clientKeyPem: clientKeyPEM,
      allowUnencrypted: allowUnencrypted,
      protocol: transportProtocol?.native,
      keepAliveMs: try ms("keepAlive", keepAlive),
      connectTimeoutMs: try ms("connectTimeout", connectTimeout),
      pollIntervalMs: try ms("pollInterval", pollInterval),
      window: window,
      inboxWindow: inboxWindow,
      backoffMinMs: try ms("backoffMin", backoffMin),
      backoffMaxMs: try ms("backoffMax", backoffMax),
      closeDeadlineMs: try ms("closeDeadline", closeDeadline),
      tokenLifetimeMs: try ms("tokenLifetime", tokenLifetime)
    )
  }
}
