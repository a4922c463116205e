//! What a run leaves of itself, and what it is given later.

use std::path::Path;

use serde_json::Value;

use super::{Place, TINY, holds, scenes, trained};

/// The arguments of a run like [`trained`]'s, with another number of epochs and a rate that does
/// not depend on it.
fn train(run: &str, epochs: usize) -> String {
    let tiny = TINY.replace("--epochs 2", &format!("--epochs {epochs} --set lr_decay=constant"));
    format!("train --recipe demo --data {} --run {run} {tiny}", scenes().display())
}

fn run_json(run: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap()
}

#[test]
fn a_finished_run_takes_more_epochs_and_ends_as_if_it_had_them_from_the_start() {
    let place = Place::new();
    place.picie(&train("whole", 2)).succeeds();
    place.picie(&train("run", 1)).succeeds();
    let before = run_json(&place.join("run"))["seconds"].as_f64().unwrap();
    place.picie("train --run run --resume --epochs 2 --keep 1").succeeds();
    let run = place.join("run");
    for name in ["checkpoint.safetensors", "epoch-02.safetensors"] {
        let read = |run: &Path| std::fs::read(run.join(name)).unwrap();
        assert!(read(&run) == read(&place.join("whole")), "{name} has other bytes");
    }
    assert!(!run.join("epoch-01.safetensors").exists(), "one epoch's file was to be kept");
    let settings = run_json(&run);
    assert_eq!(settings["recipe"]["epochs"], 2);
    assert!(settings["seconds"].as_f64().unwrap() > before, "{settings}");
    // It cannot have fewer than it was trained for.
    let why = place.picie("train --run run --resume --epochs 1").fails();
    holds(&why, &["epochs 2, now 1"]);
    holds(&place.picie("train --keep 0").err, &["--keep", "0 is not in 1.."]);
}

#[test]
fn run_json_says_when_how_and_on_what_a_run_was_made() {
    let settings = run_json(trained());
    for (place, word) in [
        ("/begun/date", "T"),
        ("/begun/command", "train --size 32"),
        ("/begun/commit", ""),
        ("/engine/device", " "),
        ("/engine/precision", "f32"),
    ] {
        let text = settings.pointer(place).and_then(Value::as_str).unwrap_or_default();
        assert!(!text.is_empty() && text.contains(word), "{place}: {settings}");
    }
    assert_eq!(settings["images"][0]["images"], 6);
    assert!(settings["images"][0]["fingerprint"].is_u64(), "{settings}");
    assert!(settings["seconds"].as_f64().unwrap() > 0.0, "{settings}");
    let table = std::fs::read_to_string(trained().join("table.txt")).unwrap();
    holds(&table, &["epoch", "mIoU", "scores: network input"]);
}

#[test]
fn table_and_pictures_are_there_after_ctrl_c() {
    let place = Place::new();
    let mut running = place.start(&(train("run", 99) + " > out"), 2);
    running.wait_for("epoch 1 of 99");
    running.signal("INT");
    let ran = running.finish();
    assert_eq!(ran.code, Some(130), "{ran:?}");
    let out = std::fs::read_to_string(place.join("out")).unwrap();
    holds(&out, &["epoch", "mIoU", "scores: network input"]);
    assert!(place.join("run/pictures/sheet.png").exists());
    let table = std::fs::read_to_string(place.join("run/table.txt")).unwrap();
    assert_eq!(table.trim_end(), out.trim_end());
}
