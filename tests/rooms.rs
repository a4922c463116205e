//! The rules of the rooms inside `src`, held by a test: files of a room do not import each other in
//! circles, engines check no arguments, and nothing above the doors knows which engine it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All `.rs` files below `dir`, relative to the root.
fn files(dir: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(dir)]);
    while let Some(dir) = open.pop() {
        for path in std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()) {
            match path.extension() {
                _ if path.is_dir() => open.push(path),
                Some(ext) if ext == "rs" => {
                    found.push(path.strip_prefix(root()).unwrap().to_path_buf())
                }
                _ => {}
            }
        }
    }
    assert!(!found.is_empty(), "no .rs below {dir}");
    found.sort();
    found
}

/// The code of a file: without comments, and without its own tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `src/device/cpu/mod.rs` is the module device::cpu.
fn module(path: &Path) -> String {
    let path = path.strip_prefix("src").unwrap().with_extension("");
    let path = if path.ends_with("mod") { path.parent().unwrap() } else { &path };
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::")
}

/// The paths behind `prefix` of a use tree: `a::{b, c::{d, e}}` names a::b, a::c::d and a::c::e.
fn paths(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        found.push(format!("{prefix}{tree}"));
        return;
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start) = (0, 0);
    for (i, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                paths(&format!("{prefix}{head}"), &inner[start..i], found);
                start = i + 1;
            }
            _ => {}
        }
    }
}

/// Which modules each imports, by `use crate::…` and `use super::…`. Parents and children do not
/// count: a room's `mod.rs` lists its files, and these have its types.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let all: BTreeMap<String, PathBuf> =
        files("src").into_iter().map(|path| (module(&path), path)).collect();
    let inside = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with("::"));
    let mut imports = BTreeMap::new();
    for (from, path) in &all {
        let code: String = code(path).split_whitespace().collect::<Vec<_>>().join(" ");
        let mut names = Vec::new();
        for tree in code.split("use crate::").skip(1) {
            let tree = tree.split(';').next().unwrap().replace(' ', "");
            paths("", &tree, &mut names);
        }
        let parent = from.rsplit_once("::").map_or(String::new(), |(room, _)| format!("{room}::"));
        for tree in code.split("use super::").skip(1).filter(|tree| !tree.starts_with("super")) {
            let tree = tree.split(';').next().unwrap().replace(' ', "");
            paths(&parent, &tree, &mut names);
        }
        // The longest module that the path begins with.
        let target = |name: &String| {
            let mut name = name.as_str();
            while !all.contains_key(name) {
                name = name.rsplit_once("::")?.0;
            }
            Some(name.to_string())
        };
        let other = |to: &String| to != from && !inside(to, from) && !inside(from, to);
        imports.insert(from.clone(), names.iter().filter_map(target).filter(other).collect());
    }
    imports
}

/// Whether imports lead from `from` back to it.
fn returns(imports: &BTreeMap<String, BTreeSet<String>>, from: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(here) = open.pop() {
        for there in &imports[here] {
            if there == from {
                return true;
            }
            if seen.insert(there) {
                open.push(there);
            }
        }
    }
    false
}

#[test]
fn use_trees_are_read() {
    let mut found = Vec::new();
    paths("", "a::{b,c::{d,e},f}", &mut found);
    assert_eq!(found, ["a::b", "a::c::d", "a::c::e", "a::f"]);
    let circle = [("a", "b"), ("b", "c"), ("c", "b")];
    let circle = circle.map(|(a, b)| (a.to_string(), BTreeSet::from([b.to_string()]))).into();
    assert!(!returns(&circle, "a") && returns(&circle, "b") && returns(&circle, "c"));
}

#[test]
fn files_do_not_import_in_circles() {
    let imports = imports();
    let seen: usize = imports.values().map(BTreeSet::len).sum();
    assert!(seen > 200, "only {seen} imports seen: the test has gone blind");
    let circle: Vec<&String> = imports.keys().filter(|from| returns(&imports, from)).collect();
    assert!(circle.is_empty(), "in circles: {circle:?}");
}

#[test]
fn a_module_with_files_is_a_folder_with_mod_rs() {
    for path in ["src", "tests", "benches"].into_iter().flat_map(files) {
        let folder = root().join(path.with_extension(""));
        assert!(!folder.is_dir(), "{} stands beside a folder of its name", path.display());
    }
}

/// Arguments are checked at the doors of `device/ops`. What an engine says of sizes is of what the
/// doors cannot see: the numbers in an index, and its own scratch.
#[test]
fn engines_check_no_arguments() {
    let (mut checks, mut doors) = (Vec::new(), 0);
    for path in files("src/device") {
        let here =
            code(&path).matches("Error::Shape").count() + code(&path).matches("want(").count();
        if path.starts_with("src/device/cpu") || path.starts_with("src/device/cuda") {
            checks.extend((here > 0).then(|| path.display().to_string()));
        } else {
            doors += here;
        }
    }
    assert_eq!(checks, ["src/device/cpu/mod.rs", "src/device/cuda/mod.rs"]);
    assert!(doors > 80, "only {doors} checks seen at the doors: the test has gone blind");
}

/// The choice of engine is the command line's; k-means of the baselines has one of its own, and so
/// has the export, whose numbers are the reference's.
#[test]
fn nothing_above_the_doors_knows_an_engine() {
    let mut knows = Vec::new();
    for path in files("src").into_iter().filter(|path| !path.starts_with("src/device")) {
        let code = code(&path);
        if code.contains("Cpu::new") || code.contains("Cuda::new") {
            knows.push(path.display().to_string());
        }
        for engine in ["<E: Engine", "<D: Engine", "impl Engine"] {
            assert!(!code.contains(engine), "{}: take &mut dyn Engine", path.display());
        }
    }
    let places = [
        "cli/devices.rs",
        "cli/engine.rs",
        "cluster/lloyd.rs",
        "export/mod.rs",
        "method/baselines/mod.rs",
    ];
    assert_eq!(knows, places.map(|place| format!("src/{place}")));
}

/// Comments end at 100 columns; code is broken by rustfmt.
#[test]
fn comments_are_short() {
    for path in ["src", "tests", "benches"].into_iter().flat_map(files) {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        for (i, line) in text.lines().enumerate() {
            let fits = line.chars().count() <= 100 || !line.trim_start().starts_with("//");
            assert!(fits, "{}:{}: {line}", path.display(), i + 1);
        }
    }
}
