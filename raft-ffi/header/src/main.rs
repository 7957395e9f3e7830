//! Writes include/raft/raft.h: one cbindgen output for each section of raft-ffi, put together in the order in which
//! the header is read. With `--check` it writes nothing and fails when the committed header is another.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use cbindgen::{
    Builder, Config, DocumentationLength, DocumentationStyle, ExportConfig, FunctionConfig, Language, Layout, Style,
};

/// The sections in order: the file in raft-ffi/src, and the title.
const SECTIONS: [(&str, &str); 15] = [
    ("version", "Version"),
    ("error", "Errors"),
    ("config", "Configuration"),
    ("server", "Server"),
    ("group", "Groups and members"),
    ("state_machine", "State machine"),
    ("start", "Starting a group"),
    ("propose", "Proposing"),
    ("session", "Sessions"),
    ("read", "Reading"),
    ("snapshot", "Snapshots"),
    ("change", "Changing members and leader"),
    ("digest", "Comparing replicas"),
    ("status", "Status"),
    ("directory", "Directories without a server"),
];

/// Longer lines are not written.
const WIDTH_COLUMNS: usize = 120;

const OPENING: &str = include_str!("opening.h");
const CLOSING: &str = "\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* RAFT_H */\n";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("include/raft/raft.h");
    match run(&root, &path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("raft-header: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, path: &PathBuf) -> Result<(), String> {
    let header = header(&root.join("raft-ffi/src"))?;
    match env::args().nth(1).as_deref() {
        None => fs::write(path, header).map_err(|error| format!("{}: {error}", path.display())),
        Some("--check") => {
            let committed = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            if committed == header {
                return Ok(());
            }
            Err("include/raft/raft.h is not what raft-ffi says: run `cargo run -p raft-header` and commit it".into())
        }
        Some(other) => Err(format!("unknown argument {other}; there is only --check")),
    }
}

/// The whole header.
fn header(sources: &Path) -> Result<String, String> {
    let mut header = OPENING.to_owned();
    for (file, title) in SECTIONS {
        let rule = "-".repeat(WIDTH_COLUMNS - 12 - title.len());
        header.push_str(&format!("\n/* ---- {title} {rule} */\n\n"));
        header.push_str(&section(&sources.join(file).with_extension("rs"))?);
    }
    header.push_str(CLOSING);
    Ok(header)
}

/// What one file exports, as C.
fn section(source: &Path) -> Result<String, String> {
    let config = Config {
        language: Language::C,
        style: Style::Both,
        no_includes: true,
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Doxy,
        documentation_length: DocumentationLength::Full,
        line_length: 100,
        tab_width: 4,
        function: FunctionConfig { args: Layout::Auto, ..FunctionConfig::default() },
        // No function of its section names it, and so nothing else would bring it in.
        export: ExportConfig { include: vec!["raft_state_machine".into()], ..ExportConfig::default() },
        ..Config::default()
    };
    let bindings = Builder::new()
        .with_config(config)
        .with_src(source)
        .generate()
        .map_err(|error| format!("{}: {error}", source.display()))?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).map_err(|error| format!("{}: {error}", source.display()))?;
    Ok(tidy(&text))
}

/// The text as people would write it: a comment of one line on one line, a negative number in parentheses, and a type
/// always by its name alone, as a type of another section is.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.trim_matches('\n').lines().map(str::trim_end).collect();
    let mut tidy = String::new();
    let mut at = 0;
    let mut moved_columns = 0;
    while at < lines.len() {
        let line = lines[at];
        let indent = &line[..line.len() - line.trim_start().len()];
        let is_single = line.trim_start() == "/**" && lines.get(at + 2).is_some_and(|end| end.trim_start() == "*/");
        if is_single && lines[at + 1].len() + 5 <= WIDTH_COLUMNS {
            let comment = lines[at + 1].trim_start().trim_start_matches('*').trim_start();
            tidy.push_str(&format!("{indent}/** {comment} */\n"));
            at += 3;
            continue;
        }
        match line.rsplit_once(' ') {
            Some((name, number)) if line.starts_with("#define") && number.starts_with('-') => {
                tidy.push_str(&format!("{name} ({number})\n"));
            }
            _ if line.starts_with("typedef") => tidy.push_str(&format!("{line}\n")),
            _ => {
                // Further arguments stand below the first, which moves with what is taken out before it.
                let line = line.get(moved_columns.min(indent.len())..).unwrap_or(line);
                let plain = line.replace("struct raft_", "raft_");
                moved_columns = match line.ends_with(',') {
                    true if plain.contains('(') => line.find('(').unwrap_or(0) - plain.find('(').unwrap_or(0),
                    true => moved_columns,
                    false => 0,
                };
                tidy.push_str(&format!("{plain}\n"));
            }
        }
        at += 1;
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_header_is_what_the_sources_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let header = header(&root.join("raft-ffi/src")).unwrap();
        let committed = fs::read_to_string(root.join("include/raft/raft.h")).unwrap();
        assert!(header == committed, "run `cargo run -p raft-header` and commit include/raft/raft.h");
    }

    #[test]
    fn a_comment_of_one_line_is_on_one_line() {
        assert_eq!(
            tidy("/**\n * One.\n */\nstruct raft_a *raft_b(int a,\n                      int b);\n"),
            concat!("/** One. */\nraft_a *raft_b(int a,\n", "               int b);\n")
        );
        assert_eq!(tidy("#define RAFT_ERR_A -1"), "#define RAFT_ERR_A (-1)\n");
    }

    #[test]
    fn no_line_is_too_long() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let header = header(&root.join("raft-ffi/src")).unwrap();
        assert_eq!(header.lines().find(|line| line.len() > WIDTH_COLUMNS), None);
    }
}
