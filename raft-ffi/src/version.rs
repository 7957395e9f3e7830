//! Section "Version" of the header.

use std::ffi::c_char;

/// The major version that this header describes. Before 1.0.0, any minor version may change the ABI.
pub const RAFT_VERSION_MAJOR: u32 = 0;
/// The minor version that this header describes.
pub const RAFT_VERSION_MINOR: u32 = 1;
/// The patch version that this header describes.
pub const RAFT_VERSION_PATCH: u32 = 0;

/// The version of the library that runs, which may be another than the one that the program was compiled against:
/// major * 1000000 + minor * 1000 + patch.
///
/// Any thread, also in a callback and in a signal handler. Does not block, cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn raft_library_version() -> u32 {
    RAFT_VERSION_MAJOR * 1_000_000 + RAFT_VERSION_MINOR * 1_000 + RAFT_VERSION_PATCH
}

/// The same as text, for people: "0.1.0". Static, NUL-terminated; never release it.
///
/// Any thread, also in a callback and in a signal handler. Does not block, cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn raft_library_version_text() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
