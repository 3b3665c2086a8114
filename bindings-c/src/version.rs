//! The version.

use std::ffi::{CStr, c_char};

/// The first number of the version this header is of; WHIMBREL_VERSION is all of it as text.
pub const WHIMBREL_VERSION_MAJOR: i32 = 0;
/// The second number.
pub const WHIMBREL_VERSION_MINOR: i32 = 1;
/// The third number.
pub const WHIMBREL_VERSION_PATCH: i32 = 0;

/// The version of the library, such as "0.1.0": that of the header it was compiled with is WHIMBREL_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn whimbrel_version() -> *const c_char {
    VERSION.as_ptr()
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_library_and_package_are_of_one_version() {
        let numbers = [WHIMBREL_VERSION_MAJOR, WHIMBREL_VERSION_MINOR, WHIMBREL_VERSION_PATCH];
        let version = numbers.map(|number| number.to_string()).join(".");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert_eq!(VERSION.to_str().unwrap(), version);
        let header = include_str!("../include/whimbrel.h");
        assert!(header.contains(&format!("#define WHIMBREL_VERSION \"{version}\"\n")));
    }
}
