//! The imports between the engine's folders run one way (docs/architecture.md).

use std::path::{Path, PathBuf};

use raft_tests::edges::{check_file, check_sources};

fn engine_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../raft-engine/src")
}

fn findings(file: &str, text: &str) -> Vec<String> {
    check_file(Path::new(file), text).iter().map(ToString::to_string).collect()
}

#[test]
fn the_engines_imports_run_one_way() {
    let violations = check_sources(&engine_sources()).expect("readable sources");
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} imports against the edges:\n{}", list.len(), list.join("\n"));
}

#[test]
fn an_import_against_an_edge_is_found_with_its_line() {
    let text = "//! Text.\n\nuse crate::types::Term;\nuse crate::storage::Wal;\n";
    assert_eq!(findings("core/vote.rs", text), ["core/vote.rs:4: `core` may not import `storage`"]);
}

#[test]
fn an_import_in_a_group_is_found() {
    let text = "use crate::{\n    types::{Term, Index},\n    server::Loop,\n};\n";
    assert_eq!(findings("driver/mod.rs", text), ["driver/mod.rs:3: `driver` may not import `server`"]);
}

#[test]
fn a_path_in_the_middle_of_code_is_found() {
    let text = "fn f() { let x: Vec<crate::driver::Event> = g::<crate::core::Raft>(); }";
    assert_eq!(
        findings("storage/wal/tail.rs", text),
        [
            "storage/wal/tail.rs:1: `storage` may not import `driver`",
            "storage/wal/tail.rs:1: `storage` may not import `core`"
        ]
    );
}

#[test]
fn climbing_out_with_super_is_found() {
    assert_eq!(findings("core/mod.rs", "use super::driver::Event;"), ["core/mod.rs:1: `core` may not import `driver`"]);
    assert_eq!(findings("core/vote.rs", "use super::super::sim;"), ["core/vote.rs:1: `core` may not import `sim`"]);
    let inline = "mod tests {\n use super::super::super::sim::World;\n}\nuse super::progress::Progress;";
    assert_eq!(findings("core/vote.rs", inline), ["core/vote.rs:2: `core` may not import `sim`"]);
}

#[test]
fn a_way_around_through_the_root_is_found() {
    assert_eq!(
        findings("core/mod.rs", "use crate::Wal;"),
        ["core/mod.rs:1: `core` names `Wal` of the crate's root, which is no layer"]
    );
    assert_eq!(findings("sim/mod.rs", "use raft_engine::storage;"), ["sim/mod.rs:1: `sim` may not import `storage`"]);
}

#[test]
fn comments_and_strings_import_nothing() {
    let text = r##"
        //! [`crate::server`] decides nothing.
        /* crate::server::x /* nested */ unsafe */
        const A: &str = "crate::server::x \" unsafe"; const B: &str = r#"crate::sim::y " unsafe"#;
        fn f<'a>(c: char) -> bool { c == '"' || c == '\'' || c == 'u' }
        use crate::types::Term;
    "##;
    assert_eq!(findings("core/mod.rs", text), Vec::<String>::new());
}

#[test]
fn unsafe_lives_in_one_file() {
    let text = "fn f() { unsafe { g() } }";
    assert_eq!(findings("server/disk.rs", text), ["server/disk.rs:1: `unsafe` lives in server/sys.rs alone"]);
    assert_eq!(findings("server/sys.rs", text), Vec::<String>::new());
}

#[test]
fn bincode_has_one_door() {
    let text = "use bincode::Options;";
    assert_eq!(findings("transport/frame.rs", text), ["transport/frame.rs:1: bincode has one door, the codec"]);
    assert_eq!(findings("codec.rs", text), Vec::<String>::new());
}

#[test]
fn below_the_line_nothing_touches_the_world_outside_tests() {
    let text = "use std::fs::File;\nfn f() { rustix::fs::sync(); }\n#[cfg(test)]\nmod tests { use std::fs; }";
    assert_eq!(
        findings("storage/files.rs", text),
        [
            "storage/files.rs:1: `storage` is below the line and may not use `std::fs`",
            "storage/files.rs:2: `storage` is below the line and may not use `rustix`"
        ]
    );
    assert_eq!(findings("server/files.rs", text), Vec::<String>::new());
}
