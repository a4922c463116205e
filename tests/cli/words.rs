//! What is said, and how: results on standard output, everything else on standard error, and no
//! work lost where nobody reads either.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use clap::CommandFactory;
use serde_json::Value;

use super::{Place, TINY, holds, scenes, trained};

/// A command's only line of standard output, which must be JSON.
#[track_caller]
fn one_line(out: &str) -> Value {
    assert_eq!(out.matches('\n').count(), 1, "{out:?}");
    serde_json::from_str(out).unwrap_or_else(|e| panic!("{e}: {out:?}"))
}

#[test]
fn every_command_with_a_result_has_json_of_one_line() {
    let place = Place::new();
    let (data, run) = (scenes().display(), trained());
    let checkpoint = run.join("epoch-02.safetensors");
    let checkpoint = checkpoint.display();
    let photo = format!("{data}/images/val2017/000000000001.jpg");
    let tiny = TINY.replace("--epochs 2", "--epochs 1");
    let calls = [
        (format!("train --recipe demo --data {data} --run run {tiny}"), "epochs"),
        (format!("train --recipe demo --data {data} --run none {tiny} --plan"), "pools"),
        (format!("eval --checkpoint {checkpoint} --data {data}"), "miou"),
        (format!("eval --checkpoint {checkpoint} --data {data}/images/val2017"), "unlabelled"),
        (format!("baselines --data {data} --clusters 9 --size 32 --weights none"), "Lab"),
        (format!("sweep lr --values 1e-4 --data {data} --run sweep {tiny}"), "1e-4"),
        (format!("segment --checkpoint {checkpoint} --out out {photo}"), "photos"),
        (
            format!("neighbors --checkpoint {checkpoint} --data {data} --query {photo}:9,9"),
            "queries",
        ),
        (format!("compare --checkpoint {checkpoint} --data {data} --out sheet.png"), "images"),
        (format!("name --checkpoint {checkpoint}"), "segments"),
        (
            format!("recluster --checkpoint {checkpoint} --data {data} --clusters 5 --out five"),
            "images",
        ),
        (format!("export --checkpoint {checkpoint} --onnx net.onnx"), "written"),
        (format!("info {checkpoint}"), "kind"),
        ("recipes photos".into(), "batch"),
        ("scenes drawn --train 1 --val 1".into(), "dir"),
        (
            "bench --images 4 --size 32 --stored 32 --batch 2 --batch-cluster 2 --epochs 1".into(),
            "phases",
        ),
        ("devices".into(), "cpu"),
        ("cache".into(), "entries"),
        ("cache --clear".into(), "freed"),
    ];
    for (words, name) in &calls {
        let value = one_line(&place.picie(&format!("{words} --json")).succeeds().out);
        assert!(!value[name].is_null(), "{words}: no {name} in {value}");
    }
    // A photo that is none fails, after the line.
    let segment =
        format!("segment --json --checkpoint {checkpoint} --out out {photo} {checkpoint}");
    let ran = place.picie(&segment);
    let value = one_line(&ran.out);
    assert_eq!((ran.code, value["photos"].as_array().map(Vec::len)), (Some(1), Some(1)));
    holds(value["failed"][0]["photo"].as_str().unwrap(), &["epoch-02.safetensors"]);

    let args = picie::cli::args::Args::command();
    // These print a script and a page of text.
    let texts = ["completions", "man"];
    for command in args.get_subcommands().filter(|c| !texts.contains(&c.get_name())) {
        let name = command.get_name();
        let json = command.get_arguments().any(|flag| flag.get_id() == "json");
        assert!(json, "{name} prints a result without --json");
        assert!(calls.iter().any(|(words, _)| words.starts_with(name)), "{name} is not tried");
    }
}

/// Runs a tiny training whose standard output and error are these, and returns its exit status and
/// the lines of its metrics.
fn train_into(place: &Place, run: &str, out: Stdio, err: Stdio) -> (Option<i32>, usize) {
    let words = format!("train --recipe demo --data {} --run {run} {TINY}", scenes().display());
    let mut command = place.command(crate::util::binary(), &words);
    let mut child = command.stdout(out).stderr(err).spawn().unwrap();
    // The reading ends of pipes are dropped: nobody reads.
    drop((child.stdout.take(), child.stderr.take()));
    let code = child.wait().unwrap().code();
    let rows = std::fs::read_to_string(place.join(run).join("metrics.jsonl")).unwrap();
    assert!(place.join(run).join("pictures/sheet.png").exists());
    (code, rows.lines().count())
}

#[test]
fn a_run_ends_well_where_nobody_reads_and_where_a_disk_is_full() {
    let place = Place::new();
    let gone = train_into(&place, "gone", Stdio::piped(), Stdio::piped());
    assert_eq!(gone, (Some(0), 2));
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let log = train_into(&place, "log", Stdio::null(), full.try_clone().unwrap().into());
        assert_eq!(log, (Some(0), 2));
        // Results that cannot be written are an error, when everything is done.
        let results = train_into(&place, "results", full.into(), Stdio::null());
        assert_eq!(results, (Some(1), 2));
        let ran = place.shell("exec >/dev/full", "--help");
        assert_eq!(ran.code, Some(1));
        holds(&ran.err, &["standard output: no space left on device"]);
    }
    // Closed from the start.
    let ran = place.shell("exec >&- 2>&-", "devices");
    assert_eq!(ran.code, Some(0));
}

#[test]
fn quiet_says_no_progress_and_verbose_says_more() {
    let place = Place::new();
    let data = scenes().display();
    let train = |run: &str, flag: &str| {
        let words = format!("train --recipe demo --data {data} --run {run} {TINY} {flag}");
        place.picie(&words).succeeds()
    };
    let (usual, quiet, more) = (train("a", ""), train("b", "--quiet"), train("c", "-v"));
    // An epoch of 3 steps is worth a warning; nothing else is.
    assert!(quiet.err.lines().all(|line| line.starts_with("warning: ")), "{quiet:?}");
    holds(&quiet.out, &["mIoU", "run: b"]);
    holds(&usual.err, &["k-means  ", "evaluate  ", "read images  "]);
    assert!(!usual.err.contains("wrote "), "{usual:?}");
    holds(&more.err, &["engine: {", "recipe: {", "wrote c/checkpoint.safetensors: "]);
    assert_eq!(place.picie("devices -q -v").code, Some(2));
}

#[test]
fn commands_in_messages_can_be_pasted() {
    let place = Place::new();
    let ran = place.picie_on(
        &format!("train --recipe demo --data {} {TINY}", scenes().display()),
        ["--run", "my 'run'"],
    );
    let out = ran.succeeds().out;
    let line = out.lines().last().unwrap().strip_prefix("segment your own: ").unwrap();
    let photo = scenes().join("images/val2017/000000000001.jpg");
    let pasted = line.replace("DIR IMAGE...", &format!("out {}", photo.display()));
    let arguments = pasted.strip_prefix("picie ").unwrap();
    let ran = place.shell(":", arguments).succeeds();
    holds(&ran.out, &["out/000000000001-labels.png"]);
}

/// On a terminal of 80 columns no line is broken: not of bars, not of tables, not of help.
#[test]
fn a_terminal_of_80_columns_stays_whole() {
    let place = Place::new();
    let data = scenes().display();
    let train = format!("train --recipe demo --data {data} --run run {TINY}");
    let eval = format!("eval --checkpoint run/epoch-02.safetensors --data {data}");
    for (words, part) in
        [(&*train, "mIoU"), (&eval, "predicted"), ("--help", "Usage"), ("train --help", "--run")]
    {
        let Some(seen) = terminal(&place, words) else {
            println!("skipped: no `script` to make a terminal with");
            return;
        };
        holds(&seen, &[part]);
        if words.starts_with("train --recipe") {
            holds(&seen, &["\x1b[2K", "/6 images, ", " images/s, "]);
        }
        for line in seen.split(['\n', '\r']) {
            let shown = line.replace("\x1b[2K", "");
            // Prose is broken by the terminal, and paths and commands are as long as they are.
            let path = shown.contains('/') && !shown.contains("images/s");
            let free = path || ["starts from", "warning: "].iter().any(|p| shown.starts_with(p));
            let plain: String = unstyled(&shown);
            assert!(free || plain.chars().count() <= 80, "{words}: {plain:?}");
        }
    }
    let plain = terminal_with(&place, "--help", "NO_COLOR=1").unwrap();
    assert!(!plain.contains("\x1b["), "{plain:?}");
    assert!(terminal(&place, "--help").unwrap().contains("\x1b["));
}

/// A text without the sequences that colour it.
fn unstyled(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |all, part| all + part.split_once('m').map_or(part, |(_, rest)| rest))
}

fn terminal(place: &Place, words: &str) -> Option<String> {
    terminal_with(place, words, "TERM=xterm")
}

/// What `picie` with `words` shows on a terminal of 80 columns. None: there is no `script`, which
/// makes one.
fn terminal_with(place: &Place, words: &str, env: &str) -> Option<String> {
    let inner = format!("stty cols 80 rows 24; {env} {} {words}", crate::util::binary().display());
    let mut command = place.command("script", "-qec");
    command.arg(inner).arg("/dev/null").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut seen = String::new();
    child.stdout.take()?.read_to_string(&mut seen).unwrap();
    assert!(child.wait().unwrap().success(), "{seen}");
    Some(seen)
}

#[test]
fn without_a_terminal_a_long_phase_has_a_line_every_few_seconds() {
    let place = Place::new();
    // It takes longer than a line needs, and is stopped then.
    let words = "scenes drawn --train 9000";
    let mut running = place.start(words, 1);
    let first = running.wait_for("scenes ").to_string();
    holds(&first, &["/9064 images, ", " images/s, ", " left"]);
    running.signal("INT");
    assert_eq!(running.finish().code, Some(130));
}

#[test]
fn pipes_are_read_where_they_are_photos_and_left_out_of_folders() {
    let place = Place::new();
    let photo = scenes().join("images/val2017/000000000001.jpg");
    let checkpoint = trained().join("epoch-02.safetensors");
    let words = format!("segment --checkpoint {} --out out /dev/stdin", checkpoint.display());
    // A shell hands a file on as it is; `cat` makes a pipe of it.
    let line = format!("cat {} | {} {words}", photo.display(), crate::util::binary().display());
    let done = place.command("sh", "-c").arg(line).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    holds(&String::from_utf8_lossy(&done.stdout), &["/dev/stdin → out/stdin-labels.png"]);
    // What cannot be read of it is called as it was given.
    let line = format!("echo none | {} {words}", crate::util::binary().display());
    let done = place.command("sh", "-c").arg(line).output().unwrap();
    holds(&String::from_utf8_lossy(&done.stderr), &["picie: /dev/stdin: this is text"]);
    let size = |path| image::image_dimensions(path).unwrap();
    assert_eq!(size(place.join("out/stdin-labels.png")), size(photo.clone()));

    std::fs::create_dir(place.join("in")).unwrap();
    std::fs::copy(&photo, place.join("in/a.jpg")).unwrap();
    assert!(place.command("mkfifo", "in/x.jpg").status().unwrap().success());
    let tiny = TINY.replace("--epochs 2", "--epochs 1");
    let ran = place.picie(&format!("train --data in --run run {tiny}")).succeeds();
    holds(&ran.err, &["left out: ", "in/x.jpg: not a file, but a pipe"]);
}
