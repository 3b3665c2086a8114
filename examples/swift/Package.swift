// swift-tools-version: 6.0

import PackageDescription

// Each folder of Sources is a program. Beside this repository, the dependency is where the package was put.
let programs = ["send-telemetry", "survive-outage", "alerts-first", "receive-commands", "phone-app"]

let package = Package(
  name: "WhimbrelExamples",
  platforms: [.macOS(.v13)],
  dependencies: [.package(name: "Whimbrel", path: "../../bindings-uniffi/swift")],
  targets: (programs + ["readme"]).map { name in
    .executableTarget(
      name: name,
      dependencies: [
        .product(name: "Whimbrel", package: "Whimbrel"), .product(name: "WhimbrelTesting", package: "Whimbrel"),
      ])
  }
)
