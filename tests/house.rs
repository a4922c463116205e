//! The rules of the house, held by a test: who imports whom, one stem in every place, short files,
//! where `unsafe` may be, and documents that say what is so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::util::kernels;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files below `dir` that end in `.ext`, relative to the root.
fn files(dir: &str, ext: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ext) {
                found.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{ext} below {dir}");
    found
}

/// The floors of the house from the picture at the head of `src/lib.rs`, the highest first.
fn floors() -> BTreeMap<String, usize> {
    let text = read("src/lib.rs");
    let picture = text.split("```").nth(1).expect("src/lib.rs has a picture");
    let mut floors = BTreeMap::new();
    for (floor, line) in picture.lines().skip(1).filter(|l| l.len() > 4).enumerate() {
        // Names stand left, prose right of two spaces.
        let names = line.trim_start_matches("//!").trim_start().split("  ").next().unwrap();
        for name in names.split_whitespace() {
            floors.insert(name.to_string(), floor);
        }
    }
    floors
}

#[test]
fn imports_run_down() {
    let floors = floors();
    let mut seen = 0;
    for path in files("src", "rs") {
        let parts: Vec<_> = path.iter().map(|p| p.to_string_lossy().to_string()).collect();
        let Some(&here) = floors.get(parts[1].trim_end_matches(".rs")) else {
            assert!(
                ["lib.rs", "main.rs"].contains(&parts[1].as_str()),
                "{} is missing in src/lib.rs's picture",
                path.display()
            );
            continue;
        };
        for line in read(&path).lines() {
            for there in line.split("crate::").skip(1) {
                let name: String =
                    there.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let floor = floors
                    .get(&name)
                    .unwrap_or_else(|| panic!("{}: no room is called {name}", path.display()));
                assert!(*floor >= here, "{} imports {name}, which is above it", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} imports seen: the test has gone blind");
}

#[test]
fn an_op_family_has_one_stem_everywhere() {
    // A family is a file or a folder.
    let entries = std::fs::read_dir(root().join("src/device/ops")).unwrap().flatten();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().to_string();
    let stems = entries.map(|entry| stem(entry.path())).filter(|stem| stem != "mod");
    let stems: BTreeSet<String> = stems.collect();
    assert!(stems.len() >= 8);
    for stem in stems {
        let exists = |path: String| root().join(&path).exists();
        for place in ["src/device/cpu", "src/device/cuda", "tests/ops", "benches/ops"] {
            assert!(
                exists(format!("{place}/{stem}.rs")) || exists(format!("{place}/{stem}/mod.rs")),
                "{place} lacks {stem}"
            );
        }
        assert!(exists(format!("cuda/{stem}.cu")), "cuda lacks {stem}");
        for list in ["tests/ops/mod.rs", "benches/ops/main.rs"] {
            assert!(read(list).contains(&format!("mod {stem};")), "{list} does not run {stem}");
        }
        assert!(
            read("benches/ops/main.rs").contains(&format!("{stem}::bench")),
            "benches/ops/main.rs does not run {stem}"
        );
    }
}

/// The entries of `cuda/*.cu`, each with its file's stem up to the first underscore.
fn kernels() -> Vec<(String, String)> {
    let entries = |path: PathBuf| {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let family = stem.split('_').next().unwrap().to_string();
        let kernels = kernels::parse(&read(&path)).kernels;
        kernels.into_iter().map(move |kernel| (kernel.name, family.clone()))
    };
    files("cuda", "cu").into_iter().flat_map(entries).collect()
}

/// The name that build.rs gives a kernel's arguments: `norm_apply` has `NormApply`.
fn arguments(kernel: &str) -> String {
    kernel.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// A kernel that nobody launches is a warning of the compiler; this says where they are launched.
#[test]
fn kernels_are_launched_by_the_file_of_their_family() {
    let launchers: Vec<(PathBuf, String)> =
        files("src/device/cuda", "rs").into_iter().map(|p| (p.clone(), read(&p))).collect();
    let kernels = kernels();
    assert!(kernels.len() >= 30, "{} kernels seen: the test has gone blind", kernels.len());
    for (kernel, stem) in kernels {
        assert!(kernel.starts_with(&format!("{stem}_")), "{kernel} is in a file of {stem}");
        let made = format!("kernels::{} {{", arguments(&kernel));
        let by: Vec<_> = launchers.iter().filter(|(_, code)| code.contains(&made)).collect();
        assert_eq!(by.len(), 1, "{kernel} must be launched by one file");
        let path = by[0].0.to_string_lossy();
        assert!(path.contains(&format!("cuda/{stem}")), "{kernel} is launched by {path}");
    }
}

/// A data set layout is a file and its lines in the table: nothing else names it.
#[test]
fn every_layout_is_in_the_table_and_nowhere_else() {
    let table = read("src/data/layouts/mod.rs");
    let listed = table.split("LAYOUTS: &[").nth(1).unwrap().split(';').next().unwrap();
    let layouts: Vec<PathBuf> =
        files("src/data/layouts", "rs").into_iter().filter(|p| !p.ends_with("mod.rs")).collect();
    assert!(layouts.len() >= 4, "{layouts:?}");
    for path in &layouts {
        let stem = path.file_stem().unwrap().to_string_lossy();
        assert!(listed.contains(&format!("&{stem}::LAYOUT")), "LAYOUTS lacks {stem}");
        let code = read(path);
        let name = code.split("name: \"").nth(1).unwrap().split('"').next().unwrap();
        for other in files("src", "rs").iter().filter(|p| !p.starts_with("src/data/layouts")) {
            let named = [format!("\"{name}\""), format!("{stem}::")];
            let own = read(other).split("\n#[cfg(test)]").next().unwrap().to_string();
            for name in named {
                assert!(!own.contains(&name), "{} names the layout {name}", other.display());
            }
        }
    }
}

/// build.rs gives launchers the constants of kernels, so that none stands twice in a family.
#[test]
fn no_constant_of_a_kernel_stands_in_its_launcher() {
    let launchers = files("src/device/cuda", "rs");
    let mut seen = 0;
    for path in [files("cuda", "cu"), files("cuda", "cuh")].concat() {
        let family = path.file_stem().unwrap().to_string_lossy();
        let family = family.split('_').next().unwrap();
        let own = |path: &&PathBuf| path.to_string_lossy().contains(&format!("cuda/{family}"));
        let code: String = launchers.iter().filter(own).map(read).collect();
        for (name, _) in kernels::parse(&read(&path)).constants {
            let copy = format!("const {name}: ");
            assert!(!code.contains(&copy), "{name} is {}'s: use consts", path.display());
            seen += usize::from(!code.is_empty());
        }
    }
    assert!(seen > 50, "only {seen} constants seen: the test has gone blind");
}

/// What lies at the top is what the repository is about.
#[test]
fn the_top_level_holds_what_it_should_and_nothing_else() {
    let listed = std::process::Command::new("git")
        .args(["ls-tree", "--name-only", "HEAD"])
        .current_dir(root())
        .output();
    // An unpacked archive is no repository.
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else { return };
    let wanted = "Cargo.toml Cargo.lock build.rs src cuda tests benches README.md LICENSE .gitignore \
                  .ci docs CONTRIBUTING.md CHANGELOG.md .clang-format .editorconfig .rustfmt.toml \
                  rust-toolchain.toml pyproject.toml";
    let wanted: BTreeSet<&str> = wanted.split_whitespace().collect();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn files_are_short() {
    let code = ["src", "tests", "benches"].iter().flat_map(|dir| files(dir, "rs"));
    let kernels = ["cu", "cuh", "rs"].iter().flat_map(|ext| files("cuda", ext));
    for path in code.chain(kernels) {
        let lines = read(&path).lines().count();
        assert!(lines <= 400, "{} has {lines} lines: make it two files", path.display());
    }
}

#[test]
fn unsafe_stands_where_foreign_code_is_called() {
    for path in files("src", "rs") {
        let code = read(&path);
        let code = code
            .lines()
            .filter(|l| !l.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        let allowed = path.ends_with("device/cpu/gemm.rs") || path.starts_with("src/device/cuda");
        assert!(
            allowed
                || !code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_undone() {
    for path in ["src", "tests", "benches"]
        .iter()
        .flat_map(|dir| files(dir, "rs"))
        .filter(|p| !p.ends_with("house.rs"))
    {
        for word in ["TODO", "FIXME", "todo!(", "unimplemented!(", "dbg!("] {
            assert!(!read(&path).contains(word), "{} has {word}", path.display());
        }
    }
}

/// README, CONTRIBUTING and everything in docs/.
fn documents() -> Vec<PathBuf> {
    let roots = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(PathBuf::from);
    roots.into_iter().chain(files("docs", "md")).collect()
}

/// The commands in the documents' `sh` blocks, with the document of each, comments dropped.
fn commands() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for path in documents() {
        let text = read(&path);
        for block in text.split("```sh\n").skip(1) {
            let lines = block.split("```").next().unwrap().lines();
            let lines = lines.map(|l| l.split(" #").next().unwrap().trim().to_string());
            found.extend(lines.filter(|l| !l.is_empty()).map(|l| (path.clone(), l)));
        }
    }
    found
}

#[test]
fn commands_in_documents_exist() {
    let mut checked = BTreeSet::new();
    for (path, command) in commands() {
        let place = format!("{}: {command}", path.display());
        let words = command.replace("cargo run --release --", "picie");
        let mut words = words.split_whitespace();
        if words.next() != Some("picie") {
            continue;
        }
        let subcommand = words.next().unwrap().to_string();
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_picie"))
            .args([&subcommand, "--help"])
            .output()
            .unwrap();
        assert!(help.status.success(), "{place}: no such subcommand");
        let help = String::from_utf8(help.stdout).unwrap();
        for flag in words.filter(|w| w.starts_with("--")) {
            assert!(help.contains(flag), "{place}: no flag {flag}");
        }
        checked.insert(subcommand);
    }
    let all = [
        "train",
        "eval",
        "sweep",
        "compare",
        "name",
        "neighbors",
        "recluster",
        "segment",
        "scenes",
        "bench",
        "devices",
        "baselines",
        "cache",
        "completions",
        "man",
    ];
    assert_eq!(checked, all.map(String::from).into());
}

/// Links between documents, and paths that they name in backticks. A path with a capital word, a
/// star or a brace stands for several.
#[test]
fn files_that_documents_name_exist() {
    let mut seen = 0;
    for path in documents() {
        let text = read(&path);
        let dir = path.parent().unwrap();
        let links = text.split("](").skip(1).map(|l| l.split(')').next().unwrap());
        let links = links.filter(|l| !l.contains("://")).map(|l| dir.join(l));
        // NOTE: blocks of code are no inline code, and leave the backticks outside them in pairs.
        let prose: String = text.split("```").step_by(2).collect();
        let code: Vec<&str> = prose.split('`').skip(1).step_by(2).collect();
        let places = ["src/", "cuda/", "tests/", "benches/", "docs/", ".ci/"];
        let named = code.iter().map(|code| code.split_whitespace().next().unwrap_or_default());
        let named = named.filter(|w| places.iter().any(|p| w.starts_with(p)));
        let named = named.filter(|w| {
            let file = w.rsplit('/').next().unwrap().split('.').next().unwrap();
            let stands_for_several = !file.is_empty() && file.chars().all(char::is_uppercase);
            !w.contains(['*', '{']) && (!stands_for_several || w.starts_with("docs/"))
        });
        for name in links.chain(named.map(PathBuf::from)) {
            assert!(root().join(&name).exists(), "{}: no {}", path.display(), name.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} names seen: the test has gone blind");
}

/// One file writes to standard output and standard error. `eprintln!` and `println!` panic where
/// nobody reads any more, and the work at hand is lost with it.
#[test]
fn one_file_writes_to_people() {
    let ways = ["println!", "print!", "eprintln!", "eprint!", "::stdout()", "::stderr()"];
    let mut writers = BTreeSet::new();
    for path in files("src", "rs") {
        for line in read(&path).lines().filter(|line| !line.trim_start().starts_with("//")) {
            if ways.iter().any(|way| line.contains(way)) {
                writers.insert(path.display().to_string());
            }
        }
    }
    assert_eq!(writers, ["src/base/say.rs".to_string()].into());
}

#[test]
fn ci_runs_the_tests_that_documents_name() {
    let ci = read(".ci/run");
    let tests: Vec<_> =
        commands().into_iter().filter(|(_, c)| c.starts_with("cargo test --release")).collect();
    assert!(tests.len() >= 2, "docs/ARCHITECTURE.md says how to test");
    for (path, test) in tests {
        let run = ci.lines().any(|line| line.trim() == test);
        assert!(run, "{}: .ci/run does not run `{test}`", path.display());
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let cargo = read("Cargo.toml");
    let reasons = read("docs/ARCHITECTURE.md");
    let section = |name: &str| {
        cargo.split(&format!("[{name}]\n")).nth(1).unwrap().split("\n[").next().unwrap().to_string()
    };
    for line in [section("dependencies"), section("dev-dependencies")]
        .concat()
        .lines()
        .filter(|l| l.contains('=') && !l.starts_with('#'))
    {
        let name = line.split('=').next().unwrap().trim();
        assert!(
            reasons.contains(&format!("`{name}`")),
            "docs/ARCHITECTURE.md does not say what {name} is for"
        );
    }
}
