// swift-tools-version: 6.0

import PackageDescription

let package = Package(
  name: "WhimbrelActor",
  platforms: [.macOS(.v13)],
  dependencies: [.package(name: "Whimbrel", path: "../../../bindings-uniffi/swift")],
  targets: [
    .executableTarget(name: "Actor", dependencies: [.product(name: "Whimbrel", package: "Whimbrel")])
  ]
)
