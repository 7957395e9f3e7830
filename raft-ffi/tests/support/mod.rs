//! Compiles programs in C against the header and the library of this build, and runs them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A run that is longer than this hangs.
const LIMIT_SECONDS: &str = "120";

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The directory with the libraft.so and libraft.a of the profile that the test was built in.
///
/// They are built here: cargo does so for a test only where it could link with Rust.
pub(crate) fn library_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let test = env::current_exe().expect("a test knows its own path");
        let profile = test.ancestors().nth(2).expect("TARGET/PROFILE/deps/TEST");
        let name = profile.file_name().and_then(|name| name.to_str()).expect("a profile has a name");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "raft-ffi", "--profile", if name == "debug" { "dev" } else { name }]);
        build.arg("--target-dir").arg(profile.parent().expect("TARGET")).current_dir(root());
        expect_success("cargo build", &build.output().expect("cargo"));
        profile.to_path_buf()
    })
}

/// The compiler for C or C++: CC or CXX, or the system's.
pub(crate) fn compiler(variable: &str, default: &str) -> Command {
    Command::new(env::var(variable).unwrap_or_else(|_| default.to_owned()))
}

/// What a command said, if it failed.
pub(crate) fn expect_success(name: &str, output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{out}{error}", output.status);
    out
}

/// Compiles tests/c/NAME.c and runs it in an empty directory; it must end with 0. With RAFT_TEST_VALGRIND set it is run
/// under valgrind, and must leave no memory behind.
#[allow(dead_code, reason = "each test file includes this one")]
pub(crate) fn run(name: &str) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = directory.path().join(name);
    let library = library_directory();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let mut compile = compiler("CC", "cc");
    compile.args(["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    compile.arg("-I").arg(root().join("include")).arg("-o").arg(&program).arg(sources.join(name).with_extension("c"));
    compile.arg("-L").arg(library).args(["-lraft", "-pthread"]);
    expect_success(name, &compile.output().expect("a C compiler"));
    fs::create_dir(directory.path().join("data")).expect("a directory of our own");
    // The loader asks for the name inside of the library.
    std::os::unix::fs::symlink(library.join("libraft.so"), directory.path().join("libraft.so.0")).expect("a link");
    let mut run = Command::new("timeout");
    run.args(["--signal=ABRT", LIMIT_SECONDS]);
    if env::var_os("RAFT_TEST_VALGRIND").is_some() {
        run.args(["valgrind", "--quiet", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]);
        // A forked child has memory of threads that are not in it.
        run.args(["--error-exitcode=9", if name == "fork" { "--leak-check=no" } else { "--leak-check=full" }]);
    }
    run.arg(&program).current_dir(directory.path().join("data")).env("LD_LIBRARY_PATH", directory.path());
    expect_success(name, &run.output().expect("timeout(1) of coreutils"))
}
