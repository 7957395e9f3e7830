//! Gives the shared library its name for the dynamic linker, by which programs find one with this ABI.

use std::path::Path;
use std::{env, io};

/// Changes with the ABI: docs/abi.md.
const SONAME: &str = "libraft.so.0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    // A program linked in this tree looks for that name; where it is installed, the installation makes the link.
    let out = env::var("OUT_DIR").unwrap_or_default();
    if let Some(profile) = Path::new(&out).ancestors().nth(3) {
        match std::os::unix::fs::symlink("libraft.so", profile.join(SONAME)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                println!("cargo:warning=no {SONAME} beside libraft.so: {error}");
            }
            _ => {}
        }
    }
}
