//! What ptxas says of each kernel, where this build had nvcc: no more registers and spills than
//! `cuda/registers.txt` records.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The most registers and spilled bytes of each kernel over all element types and architectures of
/// the build.
fn compiled() -> BTreeMap<String, (usize, usize)> {
    let mut kernels: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for path in Path::new(env!("OUT_DIR")).read_dir().unwrap().flatten().map(|e| e.path()) {
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for entry in text.split("Compiling entry function '").skip(1) {
            // <stem>_<what>_<type>
            let name = entry.split('\'').next().unwrap().rsplit_once('_').unwrap().0;
            let before = |what: &str| -> usize {
                let words: Vec<&str> =
                    entry.split(what).next().unwrap().split_whitespace().collect();
                words.last().unwrap().parse().unwrap()
            };
            let seen = kernels.entry(name.into()).or_default();
            let spilled = before(" bytes spill stores") + before(" bytes spill loads");
            *seen = (seen.0.max(before(" registers")), seen.1.max(spilled));
        }
    }
    kernels
}

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/registers.txt")
}

#[test]
fn kernels_use_no_more_registers_and_spills_than_recorded() {
    let compiled = compiled();
    if compiled.is_empty() {
        eprintln!("skipped: this build had no nvcc");
        return;
    }
    let text = std::fs::read_to_string(table()).unwrap();
    let number = |word: &str| word.parse::<usize>().expect("a number");
    let recorded: BTreeMap<&str, (usize, usize)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|words| (words[0], (number(words[1]), words.get(2).map_or(0, |word| number(word)))))
        .collect();
    let mut wrong = Vec::new();
    for (name, (registers, spilled)) in &compiled {
        match recorded.get(name.as_str()) {
            Some((most, spills)) if registers <= most && spilled <= spills => {}
            Some((most, spills)) => wrong.push(format!(
                "{name} uses {registers} registers and spills {spilled} bytes; recorded are {most} and {spills}"
            )),
            None => wrong.push(format!("{name} {registers} {spilled} is not recorded")),
        }
    }
    wrong.extend(
        recorded
            .keys()
            .filter(|name| !compiled.contains_key(**name))
            .map(|name| format!("{name} is gone")),
    );
    assert!(
        wrong.is_empty(),
        "mend the kernel, or run `.ci/rewrite registers` where that is meant:\n{}",
        wrong.join("\n")
    );
}

/// What `.ci/rewrite registers` runs: the table of this build, under the comments that stand there.
#[test]
#[ignore = "writes cuda/registers.txt"]
fn rewrite() {
    let compiled = compiled();
    assert!(!compiled.is_empty(), "this build had no nvcc");
    let old = std::fs::read_to_string(table()).unwrap();
    let mut text = String::new();
    for comment in old.lines().filter(|line| line.starts_with('#')) {
        writeln!(text, "{comment}").unwrap();
    }
    for (name, (registers, spilled)) in compiled {
        let spills = if spilled > 0 { format!(" {spilled}") } else { String::new() };
        writeln!(text, "{name} {registers}{spills}").unwrap();
    }
    std::fs::write(table(), text).unwrap();
}
