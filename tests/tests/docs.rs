//! The documents say what is there: paths they name exist, and `client/docs/rfc.toml` knows every RFC that the code cites.
//! Every rule is proved by a text that breaks it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const PACKAGES: [&str; 6] = ["client", "ice", "media", "sip", "tests", "tui"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn exists(path: &str) -> bool {
    root().join(path).exists()
}

// ---- paths -------------------------------------------------------------------------------------------------------

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn expand(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let Some((before, (middle, after))) = parts else { return vec![path.to_owned()] };
    middle.split(',').flat_map(|part| expand(&format!("{before}{}{after}", part.trim()))).collect()
}

fn in_backticks(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Paths that a document names in backticks: from the root of the workspace, or, in the first cell of a table, from the
/// folder that the heading before it names.
fn named_paths(text: &str) -> Vec<String> {
    let mut folder = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            folder = in_backticks(line).find(|name| exists(name)).unwrap_or("");
        }
        let first_cell = line.strip_prefix("| ").and_then(|cells| cells.split_once(" |")).map_or("", |(cell, _)| cell);
        for name in in_backticks(first_cell).filter(|name| !folder.is_empty() && is_path(name) && !from_root(name)) {
            found.extend(expand(&format!("{folder}/{name}")));
        }
        found.extend(in_backticks(line).filter(|name| is_path(name) && from_root(name)).flat_map(expand));
    }
    found
}

fn is_path(name: &str) -> bool {
    name.contains(['/', '.']) && name.chars().all(|c| c.is_ascii_alphanumeric() || "_./{},-".contains(c))
}

fn from_root(name: &str) -> bool {
    name.split_once('/').is_some_and(|(first, _)| PACKAGES.contains(&first))
}

fn missing_paths(text: &str) -> Vec<String> {
    named_paths(text).into_iter().filter(|path| !exists(path)).collect()
}

#[test]
fn every_path_that_a_document_names_exists() {
    for document in ["README.md", "architecture", "contributing", "dependencies", "files", "protocol-facts", "style"] {
        let document = if exists(document) { document.to_owned() } else { format!("client/docs/{document}.md") };
        assert_eq!(missing_paths(&read(&document)), Vec::<String>::new(), "{document}");
    }
    assert!(named_paths(&read("client/docs/files.md")).len() > 100, "the list names files");
}

#[test]
fn a_path_that_does_not_exist_is_found() {
    let cases: [(&str, &str, &[&str]); 5] = [
        ("it exists", "See `ice/src/agent.rs` and `ice/src/{agent,pair}.rs`.", &[]),
        ("it does not", "See `ice/src/{agent,angel}.rs`.", &["ice/src/angel.rs"]),
        ("in a table below its folder", "## `ice/src`\n| `agent.rs` | x |\n| `angel.rs` | x |", &["ice/src/angel.rs"]),
        ("words are no paths", "`Agent::send(now)`, `a/b`, `--json`", &[]),
        ("commands are no paths", "`tests/run --extra`, `cargo test`", &[]),
    ];
    for (name, text, want) in cases {
        assert_eq!(missing_paths(text), want, "case: {name}");
    }
}

// ---- RFCs --------------------------------------------------------------------------------------------------------

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rfc {
    number: u16,
    title: String,
    status: Status,
    files: Vec<String>,
    #[serde(default)]
    note: String,
}

#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Implemented,
    Partial,
    Syntax,
    None,
}

fn rfcs() -> Vec<Rfc> {
    #[derive(serde::Deserialize)]
    struct File {
        rfc: Vec<Rfc>,
    }
    toml::from_str::<File>(&read("client/docs/rfc.toml")).expect("client/docs/rfc.toml").rfc
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The numbers behind `RFC `.
fn cited(text: &str) -> impl Iterator<Item = u16> {
    text.split("RFC ").skip(1).filter_map(|after| {
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after[..digits].parse().ok()
    })
}

#[test]
fn every_rfc_that_the_code_cites_is_listed_and_its_files_exist_and_cite_it() {
    let mut files = Vec::new();
    PACKAGES.iter().for_each(|package| sources(&root().join(package), &mut files));
    let mut citing: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for path in files.iter().filter(|path| !path.ends_with("tests/docs.rs") && !path.ends_with("tests/tidy.rs")) {
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        for number in cited(&std::fs::read_to_string(path).expect("UTF-8 source")) {
            citing.entry(number).or_default().push(name.clone());
        }
    }
    let listed = rfcs();
    let mut wrong = String::new();
    for (number, names) in citing.iter().filter(|(number, _)| !listed.iter().any(|rfc| rfc.number == **number)) {
        writeln!(wrong, "RFC {number} is cited in {} and not listed", names.join(", ")).expect("a string");
    }
    for rfc in &listed {
        let names = citing.get(&rfc.number).map_or(&[][..], Vec::as_slice);
        for file in rfc.files.iter().filter(|file| !names.contains(file)) {
            writeln!(wrong, "RFC {} lists {file}, which does not exist or does not cite it", rfc.number)
                .expect("a string");
        }
    }
    assert!(listed.is_sorted_by_key(|rfc| rfc.number), "the list is in the order of the numbers");
    assert!(wrong.is_empty(), "client/docs/rfc.toml:\n{wrong}");
}

#[test]
fn citations_are_read() {
    let numbers: Vec<u16> = cited("// RFC 8445 §7, RFC 3261, RFC-editor, RFC 99999, an RFC").collect();
    assert_eq!(numbers, [8445, 3261]);
}

fn table(rfcs: &[Rfc]) -> String {
    let mut text = "\
# RFCs

Which RFCs the code follows, how far, and where to look. Made from `client/docs/rfc.toml` by a test: change that file, then
`UPDATE_DOCS=1 cargo test -p tests --test docs`.

| RFC | Title | Status | Note | Files |
|---|---|---|---|---|
"
    .to_owned();
    for Rfc { number, title, status, files, note } in rfcs {
        let files: Vec<String> = files.iter().map(|file| format!("`{file}`")).collect();
        let status = format!("{status:?}").to_lowercase();
        let link = format!("[{number}](https://www.rfc-editor.org/rfc/rfc{number})");
        writeln!(text, "| {link} | {title} | {status} | {note} | {} |", files.join(", ")).expect("a string");
    }
    text
}

#[test]
fn the_table_of_rfcs_is_the_one_that_the_list_gives() {
    let want = table(&rfcs());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join("client/docs/rfc.md"), &want).expect("client/docs/rfc.md is written");
    }
    assert_eq!(read("client/docs/rfc.md"), want, "run `UPDATE_DOCS=1 cargo test -p tests --test docs`");
}
