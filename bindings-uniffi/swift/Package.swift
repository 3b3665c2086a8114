// swift-tools-version: 6.0

import PackageDescription

// The native half. On Apple systems it is a framework that is packaged beforehand (README.md says how); elsewhere it is the static
// library that cargo builds, found by the linker's own search path: `swift build -Xlinker -L/folder/of/the/library`.
#if os(macOS)
  let native: Target = .binaryTarget(name: "WhimbrelNativeFFI", path: "WhimbrelNativeFFI.xcframework")
#else
  let native: Target = .systemLibrary(name: "WhimbrelNativeFFI", path: "Sources/WhimbrelNativeFFI")
#endif

let package = Package(
  name: "Whimbrel",
  platforms: [.iOS(.v16), .macOS(.v13)],
  products: [
    .library(name: "Whimbrel", targets: ["Whimbrel"]),
    .library(name: "WhimbrelTesting", targets: ["WhimbrelTesting"]),
  ],
  targets: [
    native,
    // Generated (`cargo xtask gen`), and nobody's interface but the next one's.
    .target(name: "WhimbrelNative", dependencies: ["WhimbrelNativeFFI"]),
    .target(name: "Whimbrel", dependencies: ["WhimbrelNative"]),
    .target(name: "WhimbrelTesting"),
    // What the tests stop, continue and look at from outside.
    .executableTarget(name: "WhimbrelTestDevice", dependencies: ["Whimbrel"], path: "Tests/WhimbrelTestDevice"),
    .testTarget(name: "WhimbrelTests", dependencies: ["Whimbrel", "WhimbrelTesting", "WhimbrelTestDevice"]),
  ]
)
