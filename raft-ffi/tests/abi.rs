//! What docs/abi.md promises of the header and the libraries, checked from outside.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn read(path: impl AsRef<Path>) -> String {
    let path = support::root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn header() -> String {
    read("include/raft/raft.h")
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = header();
    let lines = header.lines().filter(|line| !line.starts_with([' ', '*', '/', '#', '}']) && line.contains('('));
    let names = lines.filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next().map(str::to_owned));
    names.filter(|name| name.starts_with("raft_")).collect()
}

/// The names that nm finds defined.
fn defined(arguments: &[&str], library: &str) -> BTreeSet<String> {
    let path = support::library_directory().join(library);
    let output = Command::new("nm").args(arguments).arg(path).output().expect("nm of binutils");
    let text = support::expect_success("nm", &output);
    text.lines().filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned)).collect()
}

fn compile(compiler: &str, default: &str, standard: &str, source: &Path, more: &[&str]) {
    let mut command = support::compiler(compiler, default);
    command.arg(format!("-std={standard}")).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    // Libraries come after what needs them.
    command.arg("-I").arg(support::root().join("include")).arg(source).args(more);
    support::expect_success(standard, &command.output().expect("a compiler"));
}

#[test]
fn the_header_compiles_alone_in_every_standard() {
    let directory = tempfile::tempdir().unwrap();
    let text = "#include <raft/raft.h>\n#include <raft/raft.h>\nint main(void) { return RAFT_OK; }\n";
    for (compiler, default, suffix, standards) in
        [("CC", "cc", "c", ["c99", "c11", "c17", "c2x"]), ("CXX", "c++", "cc", ["c++11", "c++14", "c++17", "c++20"])]
    {
        let source = directory.path().join("alone").with_extension(suffix);
        fs::write(&source, text).unwrap();
        for standard in standards {
            compile(compiler, default, standard, &source, &["-fsyntax-only"]);
        }
    }
}

#[test]
fn the_program_in_the_header_counts() {
    let header = header();
    let (_, rest) = header.split_once("A COMPLETE PROGRAM").unwrap();
    let (program, _) = rest.split_once("\n */").unwrap();
    let lines = program.lines().skip(2).map(|line| line.strip_prefix(" *   ").unwrap_or(""));
    let directory = tempfile::tempdir().unwrap();
    // Another test may have the port.
    let text = lines.collect::<Vec<_>>().join("\n").replace("127.0.0.1:7001", "127.99.1.1:7001") + "\n";
    let source = directory.path().join("counter.c");
    fs::write(&source, text).unwrap();
    let program = directory.path().join("counter");
    let library = support::library_directory();
    compile(
        "CC",
        "cc",
        "c99",
        &source,
        &["-o", program.to_str().unwrap(), library.join("libraft.so").to_str().unwrap()],
    );
    std::os::unix::fs::symlink(library.join("libraft.so"), directory.path().join("libraft.so.0")).unwrap();
    for expected in ["counter is 1 at index ", "counter is 2 at index "] {
        let mut command = Command::new(&program);
        command.current_dir(directory.path()).env("LD_LIBRARY_PATH", directory.path());
        let text = support::expect_success("counter", &command.output().unwrap());
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn layouts_are_the_ones_that_are_written_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/layout.c");
    compile("CC", "cc", "c11", &source, &["-fsyntax-only"]);
    let (pinned, written) = (fs::read_to_string(&source).unwrap(), read("docs/abi.md"));
    let structs = header().lines().filter(|line| line.starts_with("typedef struct") && line.ends_with('{')).count();
    let sizes = pinned.lines().filter_map(|line| line.strip_prefix("SIZE(")?.strip_suffix(");")?.split_once(", "));
    let mut count = 0;
    for (name, size) in sizes {
        assert!(written.contains(&format!("| `{name}` | {size} |")), "docs/abi.md says otherwise of {name}");
        count += 1;
    }
    assert_eq!(count, structs, "layout.c has not every struct of the header");
}

#[test]
fn every_status_is_written_down() {
    let (header, written) = (header(), read("docs/abi.md"));
    let mut next = -1;
    for line in header.lines().filter_map(|line| line.strip_prefix("#define RAFT_ERR_")) {
        let (name, number) = line.split_once(" (").unwrap();
        let number: i32 = number.trim_end_matches(')').parse().unwrap();
        assert_eq!(number, next, "numbers are given in order, and never again");
        assert!(written.contains(&format!("| {number} | `RAFT_ERR_{name}` |")), "docs/abi.md lacks RAFT_ERR_{name}");
        next -= 1;
    }
    assert!(next < -20);
}

#[test]
fn the_shared_library_exports_the_header_and_nothing_else() {
    assert_eq!(defined(&["-D", "--defined-only"], "libraft.so"), declared());
}

#[test]
fn the_static_library_has_the_whole_header() {
    let defined = defined(&["--defined-only", "--extern-only"], "libraft.a");
    assert!(declared().is_subset(&defined));
    let others = defined.iter().filter(|name| name.starts_with("raft_")).count();
    assert_eq!(others, declared().len(), "names with our prefix that the header does not have");
}

#[test]
fn no_symbol_is_one_of_the_distributions_other_libraft() {
    let theirs: BTreeSet<String> = include_str!("debian-libraft2.symbols").lines().map(str::to_owned).collect();
    assert!(theirs.contains("raft_apply") && theirs.len() > 90);
    let ours = declared();
    assert!(ours.len() > 40);
    assert_eq!(ours.intersection(&theirs).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(defined(&["--defined-only", "--extern-only"], "libraft.a").is_disjoint(&theirs));
}
