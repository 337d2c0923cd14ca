//! The architecture's rules as tests (`client/docs/architecture.md` §13). Every rule is a function from sources to
//! violations, is run on the workspace, and is proved by a fixture that breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

/// Lines of one file, with its tests.
const FILE_LINES_MAX: usize = 800;
/// Lines of code in one function body, blank lines and comments not counted (as clippy counts them).
const FUNCTION_LINES_MAX: usize = 70;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    place: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place, self.line, self.what)
    }
}

fn violation(place: &str, line: usize, what: impl Into<String>) -> Violation {
    Violation { place: place.to_owned(), line, what: what.into() }
}

fn assert_clean(found: &[Violation]) {
    let list: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), list.join("\n"));
}

/// One Rust source: its path from the workspace root, and its text.
struct Source {
    path: String,
    text: String,
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                files_below(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn workspace_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for package in ["client", "ice", "media", "sip", "tests", "tui"] {
        files_below(&root().join(package), &mut found);
    }
    found.sort();
    found
}

fn workspace_sources() -> Vec<Source> {
    let rust = workspace_files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    rust.map(|path| Source {
        path: path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned(),
        text: std::fs::read_to_string(&path).expect("UTF-8 source"),
    })
    .collect()
}

/// Runs `rule` on every source of the workspace.
fn everywhere(rule: fn(&Source) -> Vec<Violation>) -> Vec<Violation> {
    workspace_sources().iter().flat_map(rule).collect()
}

// ---- crate edges -------------------------------------------------------------------------------------------------

/// Which workspace packages a package may depend on (architecture §2), and what it must not use directly.
fn edges(metadata: &serde_json::Value) -> Vec<Violation> {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("sip", &[][..]),
        ("ice", &[][..]),
        ("media", &[][..]),
        ("client", &["sip", "ice", "media"][..]),
        ("tui", &["client"][..]),
        ("tests", &["sip", "ice", "media", "client", "tui"][..]),
    ]);
    let io = ["tokio", "nix", "socket2", "hickory-resolver", "rustls", "tokio-rustls"];
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        let Some(may_use) = allowed.get(name) else {
            found.push(violation(name, 0, "a package that the architecture does not know"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("name");
            if allowed.contains_key(used) && !may_use.contains(&used) {
                found.push(violation(name, 0, format!("must not depend on {used}")));
            }
            if ["sip", "ice", "media"].contains(&name) && io.contains(&used) && dependency["kind"].is_null() {
                found.push(violation(name, 0, format!("is sans-IO and must not depend on {used}")));
            }
        }
    }
    found
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn packages_depend_on_each_other_only_as_drawn() {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    assert_clean(&edges(&serde_json::from_str(&text).expect("JSON")));
}

#[test]
fn a_forbidden_edge_is_found() {
    let metadata = serde_json::json!({"packages": [
        {"name": "tui", "dependencies": [{"name": "sip", "kind": null}]},
        {"name": "ice", "dependencies": [{"name": "tokio", "kind": null}]},
        {"name": "util", "dependencies": []},
    ]});
    let whats: Vec<String> = edges(&metadata).into_iter().map(|v| v.what).collect();
    assert_eq!(
        whats,
        [
            "must not depend on sip",
            "is sans-IO and must not depend on tokio",
            "a package that the architecture does not know"
        ]
    );
}

#[test]
fn without_the_sound_feature_no_sound_library_is_in_the_tree() {
    let tree = cargo(&["tree", "-p", "tui", "--no-default-features", "--offline", "--prefix", "none"]);
    assert!(tree.contains("client v"), "the tree lists what tui needs:\n{tree}");
    for library in ["cpal", "alsa-sys", "alsa"] {
        assert!(!tree.lines().any(|line| line.split(' ').next() == Some(library)), "{library} is in\n{tree}");
    }
}

// ---- sizes -------------------------------------------------------------------------------------------------------

fn file_size(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    let long = lines > FILE_LINES_MAX;
    long.then(|| violation(&source.path, lines, format!("{lines} lines, more than {FILE_LINES_MAX}")))
        .into_iter()
        .collect()
}

struct Functions<'a> {
    source: &'a Source,
    lines: Vec<&'a str>,
    found: Vec<Violation>,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, attributes: &[syn::Attribute], block: &syn::Block) {
        if attributes.iter().any(is_excused) {
            return;
        }
        let (first, last) = (block.brace_token.span.open().end().line, block.brace_token.span.close().start().line);
        let code = |line: &&&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let body = self.lines.get(first..last.saturating_sub(1)).unwrap_or_default();
        let count = body.iter().filter(code).count();
        if count > FUNCTION_LINES_MAX {
            let what = format!("fn {name} has {count} lines, more than {FUNCTION_LINES_MAX}");
            self.found.push(violation(&self.source.path, first, what));
        }
    }
}

/// `#[expect(clippy::too_many_lines, reason = "…")]`: clippy holds the reason and sees that it stays needed.
fn is_excused(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let text = list.tokens.to_string();
    attribute.path().is_ident("expect") && text.contains("too_many_lines") && text.contains("reason")
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig.ident, &item.attrs, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig.ident, &item.attrs, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

fn function_size(source: &Source) -> Vec<Violation> {
    let file = match syn::parse_file(&source.text) {
        Ok(file) => file,
        Err(error) => return vec![violation(&source.path, 0, format!("does not parse: {error}"))],
    };
    let mut functions = Functions { source, lines: source.text.lines().collect(), found: Vec::new() };
    functions.visit_file(&file);
    functions.found
}

#[test]
fn files_and_functions_fit_on_their_screens() {
    assert_clean(&everywhere(file_size));
    assert_clean(&everywhere(function_size));
}

#[test]
fn a_long_file_and_a_long_function_are_found() {
    assert_eq!(file_size(&source("a.rs", &"\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
    assert_eq!(file_size(&source("a.rs", &"\n".repeat(FILE_LINES_MAX))).len(), 0);
    let function = |lines: usize| format!("struct S;\nimpl S {{ fn f() {{\n// why\n{}\n}} }}", "g();\n".repeat(lines));
    assert_eq!(function_size(&source("a.rs", &function(FUNCTION_LINES_MAX))), []);
    assert_eq!(
        function_size(&source("a.rs", &function(FUNCTION_LINES_MAX + 1))),
        [violation("a.rs", 2, "fn f has 71 lines, more than 70")]
    );
}

// ---- sans-IO -----------------------------------------------------------------------------------------------------

/// The folders without a clock, a socket, a thread, a lock and unseeded randomness, and the files excepted from them.
fn is_core(path: &str) -> bool {
    let cores = ["sip/src/", "ice/src/", "media/src/", "client/src/core/", "client/src/core.rs", "client/src/lab/"];
    let devices = ["cpal", "ring", "device", "null"].map(|name| format!("media/src/audio/{name}"));
    // What carries the lab on real sockets, files and signals.
    let outside = ["driver", "command", "control", "running", "folder", "certificate"]
        .map(|name| format!("client/src/lab/{name}"));
    cores.iter().any(|core| path.starts_with(core))
        && !devices.iter().any(|device| path.starts_with(device.as_str()))
        && !outside.iter().any(|file| path.starts_with(file.as_str()))
        && !is_test_file(path)
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/") || path.ends_with("/testing.rs")
}

/// What a core must not name, as the tokens that name it, and why.
const FORBIDDEN: [(&[&str], &str); 19] = [
    (&["Instant", "::", "now"], "a clock"),
    (&["SystemTime", "::", "now"], "a clock"),
    (&["Utc", "::", "now"], "a clock"),
    (&["UdpSocket"], "a socket"),
    (&["TcpStream"], "a socket"),
    (&["TcpListener"], "a socket"),
    (&["tokio"], "a runtime"),
    (&["spawn"], "a thread or task"),
    (&["thread", "::"], "a thread or task"),
    (&["Mutex"], "a lock"),
    (&["RwLock"], "a lock"),
    (&["Condvar"], "a lock"),
    (&["HashMap"], "an unordered map"),
    (&["HashSet"], "an unordered set"),
    (&["rand", "::", "rng"], "unseeded randomness"),
    (&["thread_rng"], "unseeded randomness"),
    (&["OsRng"], "unseeded randomness"),
    (&["SysRng"], "unseeded randomness"),
    (&["getrandom"], "unseeded randomness"),
];

/// The tokens of `stream` with their lines, without what `#[cfg(test)]` stands before. `::` is one token.
fn flatten(stream: TokenStream, out: &mut Vec<(String, usize)>) {
    let mut skip_item = false;
    let mut after_hash = false;
    for tree in stream {
        match &tree {
            TokenTree::Group(group) => {
                let text = group.stream().to_string();
                if after_hash && text.starts_with("cfg") && text.contains("test") && !text.contains("not") {
                    skip_item = true;
                } else if skip_item {
                    skip_item = group.delimiter() != proc_macro2::Delimiter::Brace;
                } else {
                    flatten(group.stream(), out);
                }
                after_hash = false;
            }
            TokenTree::Punct(punct) => {
                after_hash = punct.as_char() == '#';
                if skip_item && punct.as_char() == ';' {
                    skip_item = false;
                }
                if skip_item || punct.as_char() != ':' {
                    continue;
                }
                match out.last_mut() {
                    Some((last, _)) if last == ":" => "::".clone_into(last),
                    _ => out.push((":".to_owned(), punct.span().start().line)),
                }
            }
            TokenTree::Ident(ident) => {
                if !skip_item {
                    out.push((ident.to_string(), ident.span().start().line));
                }
            }
            TokenTree::Literal(_) => after_hash = false,
        }
    }
}

fn purity(source: &Source) -> Vec<Violation> {
    if !is_core(&source.path) {
        return Vec::new();
    }
    let Ok(stream) = source.text.parse::<TokenStream>() else {
        return vec![violation(&source.path, 0, "is not made of Rust tokens")];
    };
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    let mut found = Vec::new();
    for (at, (_, line)) in tokens.iter().enumerate() {
        for (pattern, why) in FORBIDDEN {
            let here = tokens.get(at..at + pattern.len()).unwrap_or_default();
            if here.len() == pattern.len() && here.iter().zip(pattern).all(|((token, _), want)| token == want) {
                found.push(violation(&source.path, *line, format!("a core must not use {why}: {}", pattern.concat())));
            }
        }
    }
    found
}

#[test]
fn cores_have_no_clock_socket_thread_lock_or_unseeded_randomness() {
    assert_clean(&everywhere(purity));
}

#[test]
fn a_core_that_touches_the_world_is_found() {
    let cases: [(&str, &str, usize); 12] = [
        ("a clock", "fn f() { let t = std::time::Instant::now(); }", 1),
        ("a clock inside a macro", "fn f() { println!(\"{:?}\", Instant::now()); }", 1),
        ("a socket", "use std::net::UdpSocket;", 1),
        ("a task", "fn f() { tokio::spawn(async {}); }", 2),
        ("a thread", "fn f() { std::thread::sleep(d); }", 1),
        ("a lock", "struct S { a: std::sync::Mutex<u8> }", 1),
        ("randomness", "fn f() -> u8 { rand::rng().random() }", 1),
        ("an unordered map", "use std::collections::HashMap;", 1),
        ("time as a type is an argument", "fn f(now: std::time::Instant) {}", 0),
        ("a test of the core may", "#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }", 0),
        ("what follows the test may not", "#[cfg(test)]\nmod tests;\nfn f() { Instant::now(); }", 1),
        ("words in a comment are words", "/// Never calls `Instant::now`.\nfn f() {}", 0),
    ];
    for (name, text, want) in cases {
        assert_eq!(purity(&source("ice/src/agent.rs", text)).len(), want, "case: {name}");
    }
    let clock = "fn f() { Instant::now(); }";
    for path in
        ["client/src/driver/clock.rs", "media/src/audio/cpal.rs", "client/src/lab/driver.rs", "ice/src/a/tests.rs"]
    {
        assert_eq!(purity(&source(path, clock)).len(), 0, "{path} is not a core");
    }
}

// ---- comments ----------------------------------------------------------------------------------------------------

/// The comment of a line and whether it is module documentation, `None` for a line of code alone.
fn comment_of(line: &str) -> Option<(&str, bool)> {
    let trimmed = line.trim_start();
    if let Some(text) = trimmed.strip_prefix("//!") {
        return Some((text, true));
    }
    if let Some(text) = trimmed.strip_prefix("//") {
        return Some((text, false));
    }
    // A comment after code: the last ` // ` that is not inside an address such as https://host.
    line.rsplit_once(" // ").map(|(_, text)| (text, false))
}

/// The numbers of the RFCs that `text` names, each with whether a section, table, figure or appendix follows.
fn rfcs(text: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("RFC ") {
        let number: String = after.chars().take_while(char::is_ascii_digit).collect();
        rest = after.get(number.len()..).unwrap_or_default();
        if !number.is_empty() {
            let next = rest.trim_start_matches([',', ' ', '(', '\'', 's']);
            let cited = ["§", "Table", "Figure", "Appendix"].iter().any(|word| next.starts_with(word));
            found.push((number, cited));
        }
    }
    found
}

/// RFCs whose sections have no numbers.
const UNNUMBERED: [&str; 1] = ["2782"];

/// A comment that leans on an RFC says where in it. Naming an RFC again is fine once the file has cited its section,
/// and module documentation may name what the file is about.
fn citations(source: &Source) -> Vec<Violation> {
    if source.path.ends_with("tidy.rs") {
        return Vec::new(); // its fixtures break the rule
    }
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut bare = Vec::new();
    let mut block = String::new();
    let mut block_starts = 0;
    for (index, line) in source.text.lines().chain([""]).enumerate() {
        let comment = comment_of(line);
        if let Some((text, true)) = comment {
            known.extend(rfcs(text).into_iter().map(|(number, _)| number));
            continue;
        }
        let whole_line = line.trim_start().starts_with("//");
        match comment {
            Some((text, _)) if whole_line => {
                if block.is_empty() {
                    block_starts = index + 1;
                }
                block.push(' ');
                block.push_str(text.trim_start_matches('/').trim());
                continue;
            }
            Some((text, _)) => bare.push((index + 1, rfcs(text))),
            None => {}
        }
        bare.push((block_starts, rfcs(&std::mem::take(&mut block))));
    }
    known
        .extend(bare.iter().flat_map(|(_, named)| named).filter(|(_, cited)| *cited).map(|(number, _)| number.clone()));
    let missing = bare.into_iter().flat_map(|(line, named)| named.into_iter().map(move |(number, _)| (line, number)));
    missing
        .filter(|(_, number)| !known.contains(number) && !UNNUMBERED.contains(&number.as_str()))
        .map(|(line, number)| violation(&source.path, line, format!("RFC {number} is cited without its section (§)")))
        .collect()
}

fn unfinished(source: &Source) -> Vec<Violation> {
    // Put together here, so that this file does not break its own rule.
    let marks = [("to", "do!"), ("unimple", "mented!"), ("TO", "DO"), ("FIX", "ME")].map(|(a, b)| format!("{a}{b}"));
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for mark in &marks {
            if line.contains(mark.as_str()) {
                found.push(violation(&source.path, index + 1, format!("{mark} left behind")));
            }
        }
    }
    found
}

fn bounds(source: &Source) -> Vec<Violation> {
    if source.path.ends_with("tidy.rs") {
        return Vec::new(); // its fixtures break the rule
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((_, after)) = line.split_once("const ") else { continue };
        let name: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if !name.ends_with("_MAX") || line.trim_start().starts_with("//") {
            continue;
        }
        let above = index.checked_sub(1).and_then(|above| lines.get(above)).map_or("", |above| above.trim_start());
        let documented = line.contains("//") || above.starts_with("//") || above.starts_with("#[");
        if !documented {
            found.push(violation(&source.path, index + 1, format!("{name} does not say why it is that much")));
        }
    }
    found
}

/// The workspace speaks of itself only: no place on somebody's machine is named in it.
fn strangers(source: &Source) -> Vec<Violation> {
    let places = ["home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for place in &places {
            // `client/home/x` and `https://host/docs/` are not places on a machine.
            let starts = line.match_indices(place.as_str()).any(|(at, _)| {
                line.get(..at).and_then(|before| before.chars().last()).is_none_or(|c| " \"'`(=".contains(c))
            });
            if starts {
                found.push(violation(&source.path, index + 1, format!("{place} is a place on one machine")));
            }
        }
    }
    found
}

#[test]
fn comments_cite_sections_bounds_have_reasons_and_nothing_is_left_undone() {
    let rules = [citations, unfinished, bounds, strangers];
    assert_clean(&rules.into_iter().flat_map(everywhere).collect::<Vec<_>>());
}

#[test]
fn a_bare_citation_is_found() {
    let cases: [(&str, &str, usize); 7] = [
        ("with its section", "// RFC 8445 §7.2 says so.\nfn f() {}", 0),
        ("a table is a place", "// RFC 3261 Table 4\nfn f() {}", 0),
        ("without a section", "// as RFC 8445 demands\nfn f() {}", 1),
        ("after code", "let a = 1; // RFC 8445\n", 1),
        ("in a later line of the block", "// One.\n// RFC 8445 demands it.\n", 1),
        ("named again", "// RFC 8445 §7.2\nfn f() {}\n// RFC 8445 again\n", 0),
        ("what the module is about", "//! Pairs of RFC 8445.\n// RFC 8445 again\n", 0),
    ];
    for (name, text, want) in cases {
        assert_eq!(citations(&source("ice/src/a.rs", text)).len(), want, "case: {name}");
    }
}

#[test]
fn an_undocumented_bound_unfinished_work_and_a_strange_place_are_found() {
    assert_eq!(bounds(&source("a.rs", "const EARLY_MAX: usize = 100;")).len(), 1);
    assert_eq!(bounds(&source("a.rs", "/// One per fork.\nconst EARLY_MAX: usize = 100;")).len(), 0);
    assert_eq!(bounds(&source("a.rs", "const EARLY_MAX: usize = 100; // one per fork")).len(), 0);
    assert_eq!(unfinished(&source("a.rs", &format!("fn f() {{ {}do!() }}", "to"))).len(), 1);
    assert_eq!(unfinished(&source("a.rs", &format!("// {}DO: later", "TO"))).len(), 1);
    assert_eq!(strangers(&source("a.rs", &format!("let a = \"/{}/ann/a.wav\";", "home"))).len(), 1);
    assert_eq!(strangers(&source("a.rs", "let a = \"/usr/share/home\";")).len(), 0);
}

// ---- files -------------------------------------------------------------------------------------------------------

/// What the top level may hold: the given folders and files, tool files hidden.
fn top_level(names: &[String]) -> Vec<Violation> {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "client",
        "ice",
        "media",
        "sip",
        "tests",
        "tui",
        "target",
        ".git",
        ".ci",
        ".cargo",
        ".clippy.toml",
        ".config",
        ".github",
        ".gitignore",
        ".rustfmt.toml",
    ];
    let strange = names.iter().filter(|name| !allowed.contains(&name.as_str()));
    strange.map(|name| violation(name, 0, "does not belong in the top level")).collect()
}

#[test]
fn the_top_level_is_the_given_one() {
    let names: Vec<String> = std::fs::read_dir(root())
        .expect("readable")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_clean(&top_level(&names));
    assert_eq!(top_level(&["notes.txt".to_owned()]).len(), 1);
}

/// Files below a `src` that no `mod` names are not compiled, and nobody notices.
fn orphans(sources: &[Source]) -> Vec<Violation> {
    let text_of: BTreeMap<&str, &str> = sources.iter().map(|s| (s.path.as_str(), s.text.as_str())).collect();
    let mut found = Vec::new();
    for Source { path, .. } in sources {
        let Some((package, inside)) = path.split_once("/src/") else { continue };
        let (folder, file) = inside.rsplit_once('/').unwrap_or(("", inside));
        let stem = file.trim_end_matches(".rs");
        if inside.starts_with("bin/") || ["lib", "main"].contains(&stem) {
            continue;
        }
        let (folder, stem) =
            if stem == "mod" { folder.rsplit_once('/').unwrap_or(("", folder)) } else { (folder, stem) };
        let parents = if folder.is_empty() {
            vec![format!("{package}/src/lib.rs"), format!("{package}/src/main.rs")]
        } else {
            vec![format!("{package}/src/{folder}.rs"), format!("{package}/src/{folder}/mod.rs")]
        };
        let named = parents
            .iter()
            .filter_map(|parent| text_of.get(parent.as_str()))
            .any(|text| text.contains(&format!("mod {stem};")) || text.contains(&format!("mod r#{stem};")));
        // `#[path = "tests.rs"]` stands in any file of the same folder or the one above.
        let by_path = format!("{stem}.rs\"]");
        let around = path.rsplit_once('/').and_then(|(own, _)| own.rsplit_once('/')).map_or("", |(above, _)| above);
        let named = named || sources.iter().any(|s| s.path.starts_with(around) && s.text.contains(&by_path));
        if !named {
            found.push(violation(path, 0, format!("no `mod {stem};` names it")));
        }
    }
    found
}

#[test]
fn every_source_file_is_compiled() {
    assert_clean(&orphans(&workspace_sources()));
    let sources = [source("ice/src/lib.rs", "mod pair;"), source("ice/src/pair.rs", ""), source("ice/src/lost.rs", "")];
    assert_eq!(orphans(&sources), [violation("ice/src/lost.rs", 0, "no `mod lost;` names it")]);
}
