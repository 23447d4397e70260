//! The house rules that a compiler does not check: who may know whom, where `unsafe` may stand, and
//! that files can be read in a sitting.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room of `src`, and the rooms it may name.
const WALLS: &[(&str, &[&str])] = &[
    ("limits", &["outgoing"]),
    ("time", &[]),
    ("units", &[]),
    ("mutants", &[]),
    ("counters", &[]),
    ("logging", &["limits"]),
    ("sys", &["outgoing"]),
    ("outgoing", &[]),
    ("vectors", &[]),
    ("protocol", &["limits", "mutants", "outgoing", "vectors"]),
    ("sweep", &["limits", "time"]),
    ("ring", &["counters", "limits", "outgoing"]),
    ("session", &["limits", "mutants", "outgoing", "protocol", "time"]),
    (
        "shard",
        &["counters", "limits", "mutants", "outgoing", "protocol", "session", "sweep", "time"],
    ),
    ("socket", &["limits", "protocol"]),
    ("host", &["engine", "limits", "ring", "units"]),
    (
        "engine",
        &[
            "counters", "limits", "mutants", "outgoing", "protocol", "ring", "session", "shard",
            "socket", "sweep", "sys", "time",
        ],
    ),
    ("report", &["engine", "ring", "shard"]),
    ("cli", &["sweep", "units"]),
    (
        "control",
        &["engine", "limits", "logging", "report", "ring", "session", "shard", "sys", "units"],
    ),
    (
        "config",
        &[
            "cli", "control", "engine", "limits", "protocol", "shard", "socket", "sweep", "time",
            "units",
        ],
    ),
    (
        "server",
        &[
            "config", "control", "engine", "host", "limits", "report", "ring", "shard", "socket",
            "sweep", "sys", "time",
        ],
    ),
];

/// What the sans-IO rooms must not even name.
const PURE_ROOMS: &[&str] = &["protocol", "session", "sweep", "shard"];
const IMPURE_NAMES: &[&str] =
    &["Instant", "SystemTime", "std::net", "std::fs", "io_uring", "socket2", "rustix", "libc::"];

/// Where `unsafe` may stand.
const UNSAFE_PLACES: &[&str] = &["src/ring/", "src/sys.rs", "src/sweep/simd.rs", "src/vectors.rs"];

const LINES_MAX: usize = 500;
const COLUMNS_MAX: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    let name = |path: &Path| path.strip_prefix(root()).expect("inside").display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("readable"))).collect()
}

/// `src/engine/uring/mod.rs` lies in `engine`, `src/time.rs` in `time`.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    inside.split('/').next().map(|first| first.trim_end_matches(".rs"))
}

/// The rooms that a file names by `crate::`, outside of comments.
fn rooms_named(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_room_knows_only_those_it_may() {
    let mut checked = 0;
    for (path, text) in rust_files("src") {
        let Some(room) = room(&path).filter(|room| !matches!(*room, "lib" | "main")) else {
            continue;
        };
        let (_, allowed) = WALLS
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("{path}: say in tests/tidy.rs whom `{room}` may know"));
        for named in rooms_named(&text) {
            checked += 1;
            assert!(
                named == room || allowed.contains(&named.as_str()),
                "{path}: `{room}` may not know `{named}`"
            );
        }
    }
    assert!(checked > 30, "the walls were looked at: {checked}");
}

#[test]
fn the_core_names_no_clock_and_no_descriptor() {
    for (path, text) in rust_files("src") {
        if !room(&path).is_some_and(|room| PURE_ROOMS.contains(&room)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for name in IMPURE_NAMES {
                assert!(!line.contains(name), "{path}:{}: {name} in the core", number + 1);
            }
        }
    }
}

#[test]
fn the_load_generator_does_not_know_the_server() {
    for (path, text) in rust_files("loadgen/src") {
        for forbidden in ["heartwheel::shard", "heartwheel::session", "heartwheel::sweep"] {
            assert!(!text.contains(forbidden), "{path}: the judge must not know {forbidden}");
        }
    }
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    for (path, text) in rust_files("src").into_iter().chain(rust_files("loadgen/src")) {
        let allowed = UNSAFE_PLACES.iter().any(|place| path.starts_with(place));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let opens =
                ["unsafe {", "unsafe impl", "unsafe fn"].iter().any(|text| code.contains(text));
            assert!(!opens || allowed, "{path}:{}: unsafe", number + 1);
        }
    }
}

#[test]
fn files_can_be_read_in_a_sitting_and_lines_on_a_screen() {
    let folders = ["src", "loadgen/src", "loadgen/tests", "tests", "benches", "examples"];
    for (path, text) in folders.iter().flat_map(|folder| rust_files(folder)) {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines; {LINES_MAX} are the most");
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(columns <= COLUMNS_MAX, "{path}:{}: {columns} columns", number + 1);
        }
    }
}

/// Each requirement of RFC 6455 names the test that shows it.
#[test]
fn the_tests_that_the_documents_name_exist() {
    let document = fs::read_to_string(root().join("docs/RFC6455.md")).expect("readable");
    let tests: String = rust_files("tests").into_iter().map(|(_, text)| text).collect();
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let mut checked = 0;
    for row in rows {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap_or("");
        for name in shown_by.split('`').skip(1).step_by(2) {
            checked += 1;
            assert!(tests.contains(&format!("fn {name}(")), "docs/RFC6455.md: no test {name}");
        }
    }
    assert!(checked > 25, "the rows were looked at: {checked}");
}
