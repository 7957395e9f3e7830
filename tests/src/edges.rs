//! Reads the engine's sources and says which imports run against the edges between its folders.
//!
//! A folder of `raft-engine/src` is a layer (docs/architecture.md). This module finds every path that names another
//! layer, whether through `crate::`, a group in braces, a chain of `super::` or the crate's own name, and compares it
//! with the table of allowed edges. It reads tokens, not text, so comments and strings never count. It knows the table
//! and nothing else of the engine.

use std::fmt;
use std::path::{Path, PathBuf};

/// Which layers a layer may name, besides itself.
const EDGES: &[(&str, &[&str])] = &[
    ("bin", &["server", "sim", "driver", "types"]),
    ("server", &["driver", "types"]),
    ("sim", &["driver", "types"]),
    ("driver", &["session", "core", "storage", "transport", "codec", "types"]),
    ("session", &["codec", "types"]),
    ("core", &["codec", "types"]),
    ("storage", &["codec", "types"]),
    ("transport", &["codec", "types"]),
    ("codec", &[]),
    ("types", &[]),
];

/// Layers that decide, and so may not touch the world.
const BELOW_THE_LINE: &[&str] = &["driver", "session", "core", "storage", "transport", "codec", "types"];

/// Crates that touch files, sockets, threads or the system's randomness.
const CRATES_OF_THE_WORLD: &[&str] = &["getrandom", "libc", "mio", "rustix", "socket2", "tempfile"];

/// Modules of the standard library that do the same.
const STD_MODULES_OF_THE_WORLD: &[&str] = &["env", "fs", "net", "os", "process", "thread"];

/// The only file of the engine with `unsafe` in it.
const UNSAFE_FILE: &str = "server/sys.rs";

/// One place in the sources that breaks a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    /// The file, relative to the sources' root.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Checks every Rust file under `root`, which is the `src` folder of the engine. Sorted by file and line.
pub fn check_sources(root: &Path) -> std::io::Result<Vec<Violation>> {
    let mut files = Vec::new();
    list_rust_files(root, &mut files)?;
    files.sort();
    assert!(!files.is_empty(), "no Rust file under {}", root.display());
    let mut violations = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let relative = file.strip_prefix(root).expect("listed under the root");
        violations.extend(check_file(relative, &text));
    }
    violations.sort();
    Ok(violations)
}

fn list_rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for item in std::fs::read_dir(folder)? {
        let path = item?.path();
        if path.is_dir() {
            list_rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Checks one file. `relative` is its path below the sources' root.
pub fn check_file(relative: &Path, text: &str) -> Vec<Violation> {
    let modules = module_path(relative);
    let Some(layer) = modules.first().cloned() else {
        return Vec::new(); // lib.rs and main.rs are the root: they declare the layers.
    };
    let tokens = tokens_of(text);
    let mut found = Vec::new();
    let mut report = |line: usize, what: String| found.push(Violation { file: relative.to_owned(), line, what });

    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == layer) else {
        report(1, format!("`{layer}` is no layer that docs/architecture.md knows"));
        return found;
    };
    for named in named_layers(&tokens, modules.len()) {
        let known = EDGES.iter().any(|(name, _)| *name == named.name);
        if !known {
            report(named.line, format!("`{layer}` names `{}` of the crate's root, which is no layer", named.name));
        } else if named.name != layer && !allowed.contains(&named.name.as_str()) {
            report(named.line, format!("`{layer}` may not import `{}`", named.name));
        }
    }
    let below = BELOW_THE_LINE.contains(&layer.as_str());
    let is_test_file = modules.iter().any(|module| module.starts_with("test"));
    for (at, token) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text.as_str());
        let before = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].text.as_str());
        match token.text.as_str() {
            "unsafe" if relative != Path::new(UNSAFE_FILE) => {
                report(token.line, format!("`unsafe` lives in {UNSAFE_FILE} alone"));
            }
            "bincode" if layer != "codec" => {
                report(token.line, "bincode has one door, the codec".to_owned());
            }
            name if below && !is_test_file && !token.in_tests => {
                let starts_a_path = before(1) != ":" && next(1) == ":" && next(2) == ":";
                if starts_a_path && CRATES_OF_THE_WORLD.contains(&name) {
                    report(token.line, format!("`{layer}` is below the line and may not use `{name}`"));
                }
                if before(3) == "std" && before(2) == ":" && STD_MODULES_OF_THE_WORLD.contains(&name) {
                    report(token.line, format!("`{layer}` is below the line and may not use `std::{name}`"));
                }
            }
            _ => {}
        }
    }
    found
}

/// The module path of a file: `core/vote.rs` is `[core, vote]`, `core/mod.rs` is `[core]`, `lib.rs` is empty.
fn module_path(relative: &Path) -> Vec<String> {
    let mut modules: Vec<String> =
        relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if modules.last().is_some_and(|last| last == "mod" || last == "lib" || last == "main") {
        modules.pop();
    }
    modules
}

struct NamedLayer {
    name: String,
    line: usize,
}

/// Every name that follows the crate's root in a path: `crate::NAME`, `crate::{NAME, NAME}`, `super::super::NAME`.
/// `depth` is how many modules deep the file is.
fn named_layers(tokens: &[Token], depth: usize) -> Vec<NamedLayer> {
    let mut named = Vec::new();
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let is_separator = |at: usize| text(at) == ":" && text(at + 1) == ":";
    let mut at = 0;
    while at < tokens.len() {
        let begins_a_path = at == 0 || text(at - 1) != ":";
        let after_root = match text(at) {
            "crate" if is_separator(at + 1) => Some(at + 3),
            "raft_engine" if begins_a_path && is_separator(at + 1) => Some(at + 3),
            "super" if begins_a_path => {
                let mut climbed = 0;
                let mut step = at;
                while text(step) == "super" && is_separator(step + 1) {
                    climbed += 1;
                    step += 3;
                }
                (climbed == depth + tokens[at].inline_depth).then_some(step)
            }
            _ => None,
        };
        match after_root {
            Some(after) if text(after) == "{" => at = first_names_of_group(tokens, after, &mut named),
            Some(after) if after < tokens.len() => {
                named.push(NamedLayer { name: text(after).to_owned(), line: tokens[after].line });
                at = after + 1;
            }
            _ => at += 1,
        }
    }
    named
}

/// Takes the first name of each item of `{a::b, c::{d, e}}`; returns where the group ends.
fn first_names_of_group(tokens: &[Token], open: usize, named: &mut Vec<NamedLayer>) -> usize {
    let mut depth = 0;
    let mut expects_name = false;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                expects_name = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            "," => expects_name = depth == 1,
            name => {
                if std::mem::take(&mut expects_name) {
                    named.push(NamedLayer { name: name.to_owned(), line: token.line });
                }
            }
        }
    }
    tokens.len()
}

struct Token {
    text: String,
    line: usize,
    /// How many inline modules (`mod tests { ... }`) enclose it.
    inline_depth: usize,
    /// Whether one of them is for tests.
    in_tests: bool,
}

/// Cuts Rust into words and single marks, without comments, strings, characters and lifetimes.
fn tokens_of(text: &str) -> Vec<Token> {
    let mut cutter = Cutter { rest: text, line: 1, tokens: Vec::new(), inline: Vec::new(), braces: 0 };
    while !cutter.rest.is_empty() {
        cutter.step();
    }
    cutter.tokens
}

struct Cutter<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    /// For each enclosing inline module: the brace depth outside it, and whether it is for tests.
    inline: Vec<(usize, bool)>,
    braces: usize,
}

impl Cutter<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        let first = rest.chars().next().expect("not empty");
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment_length(rest));
        } else if let Some(length) = string_length(rest) {
            self.skip(length);
        } else if first == '\'' {
            self.skip(quote_length(rest));
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            self.push(&rest[..length]);
            self.skip(length);
        } else {
            if !first.is_whitespace() {
                self.mark(first);
            }
            self.skip(first.len_utf8());
        }
    }

    fn mark(&mut self, mark: char) {
        if mark == '{' {
            if let [.., keyword, name] = self.tokens.as_slice()
                && keyword.text == "mod"
            {
                let for_tests = name.text.starts_with("test");
                self.inline.push((self.braces, for_tests));
            }
            self.braces += 1;
        }
        if mark == '}' {
            self.braces = self.braces.saturating_sub(1);
            if self.inline.last().is_some_and(|(outside, _)| *outside == self.braces) {
                self.inline.pop();
            }
        }
        self.push(&mark.to_string());
    }

    fn push(&mut self, text: &str) {
        self.tokens.push(Token {
            text: text.to_owned(),
            line: self.line,
            inline_depth: self.inline.len(),
            in_tests: self.inline.iter().any(|(_, for_tests)| *for_tests),
        });
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

/// The length of the comment that `rest` begins with; Rust's comments nest.
fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of the string literal that `rest` begins with, if it begins with one: plain, byte, C or raw.
fn string_length(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).unwrap_or("-");
        after.starts_with('"')
            || (prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"') && after.starts_with('#'))
    })?;
    let body = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = &body[hashes + 1..];
        let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
        return Some(prefix.len() + hashes + 1 + length);
    }
    let mut escaped = false;
    for (at, byte) in body.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// The length of the character literal, or only of the mark of a lifetime.
fn quote_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => rest[3..].find('\'').map_or(rest.len(), |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
