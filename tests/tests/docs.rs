//! What docs/protocol.md names is there: files, tests, mutants.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources below a folder, as one text.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &std::fs::read_to_string(&path).expect("a readable source");
        }
    }
    text
}

/// What of a table's names does not exist: words in backticks, which are files, mutants (in a list that begins so) or
/// tests.
fn missing(page: &str, is_file: impl Fn(&str) -> bool, is_mutant: impl Fn(&str) -> bool, sources: &str) -> Vec<String> {
    let mut missing = Vec::new();
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 5);
    for (number, row) in rows.enumerate() {
        for (at, name) in row.split('`').enumerate().filter(|(at, _)| at % 2 == 1) {
            let before = row.split('`').nth(at - 1).unwrap_or_default();
            let exists = if name.ends_with(".rs") {
                is_file(name)
            } else if name.contains('-') {
                is_mutant(name)
            } else {
                sources.contains(&format!("fn {name}()"))
            };
            if !exists {
                missing.push(format!("row {}: {}`{name}`", number + 1, before.trim_start_matches(['|', ' ', ','])));
            }
        }
    }
    missing
}

#[test]
fn everything_that_the_protocol_page_names_exists() {
    let page = std::fs::read_to_string(root().join("docs/protocol.md")).expect("the page");
    let sources = sources(&root().join("raft-engine")) + &sources(&root().join("tests/tests"));
    let is_file = |name: &str| root().join("raft-engine/src").join(name).is_file();
    let is_mutant = |name: &str| root().join(format!("tests/mutants/{name}.patch")).is_file();
    let missing = missing(&page, is_file, is_mutant, &sources);
    assert!(missing.is_empty(), "docs/protocol.md names what is not there:\n{}", missing.join("\n"));
    // And it names every mutant: a rule that has one has a row.
    for patch in std::fs::read_dir(root().join("tests/mutants")).expect("the mutants") {
        let name = patch.expect("an entry").file_name().into_string().expect("a plain name");
        if let Some(name) = name.strip_suffix(".patch") {
            assert!(page.contains(&format!("`{name}`")), "docs/protocol.md has no row for the mutant {name}");
        }
    }
}

#[test]
fn a_name_that_is_not_there_is_found() {
    let page = "| a | b | `core/no.rs` | `no_such_test`, mutant `no-such` |\n| a | b | `core/yes.rs` | `a_test` |\n";
    let found = missing(page, |name| name == "core/yes.rs", |_| false, "fn a_test() {}");
    assert_eq!(found.len(), 3, "{found:?}");
}
