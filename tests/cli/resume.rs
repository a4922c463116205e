//! A run that was stopped, however it was, ends with the bytes of one that was not.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Place, TINY, files, holds, scenes, trained};

/// The arguments of [`trained`]'s run, with the scenes named.
fn train(run: &str) -> String {
    format!("train --recipe demo --data {} --run {run} {TINY}", scenes().display())
}

#[track_caller]
fn same_bytes(run: &Path) {
    for name in ["checkpoint.safetensors", "epoch-01.safetensors", "epoch-02.safetensors"] {
        let read = |run: &Path| std::fs::read(run.join(name)).unwrap();
        assert!(read(run) == read(trained()), "{name} has other bytes");
    }
    let rows = |run: &Path| {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines()
            .map(row)
            .map(|r| {
                [&r["epoch"], &r["loss"], &r["miou"], &r["kmeans_objective"]].map(|v| v.to_string())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(run), rows(trained()));
    let leftover = |p: std::fs::DirEntry| p.file_name().to_string_lossy().starts_with('.');
    assert!(!std::fs::read_dir(run).unwrap().flatten().any(leftover), "unfinished files are left");
}

#[test]
fn after_kills_at_any_moment() {
    let place = Place::new();
    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    // In epoch 1 before there is any checkpoint; while the first one is written; in epoch 2.
    let moments = [
        ("read labels", 60),
        ("labels", 60),
        ("evaluate", 250),
        ("evaluate", 400),
        ("k-means", 80),
    ];
    for (i, (phase, span)) in moments.into_iter().enumerate() {
        let begun = place.join("run/run.json").exists();
        let words = if begun { "train --run run --resume".to_string() } else { train("run") };
        let mut running = place.start(&words, 1 + i % 3);
        running.wait_for(phase);
        let wait = Duration::from_millis(u64::from(clock) / 7 % span * (i as u64 + 3) % span);
        std::thread::sleep(wait);
        running.signal("KILL");
        let ran = running.finish();
        println!("killed {wait:?} after {phase}: {ran:?}");
        assert_eq!(ran.code, None);
    }
    // As if the last kill had fallen into the writing of a file, or of a line.
    std::fs::write(place.join("run/.writing-abcdef"), "half").unwrap();
    place.start("train --run run --resume", 3).finish().succeeds();
    same_bytes(&place.join("run"));
    // A finished run has nothing left to do, and says again what it found.
    holds(&place.picie("train --run run --resume").succeeds().out, &["epoch", "run: run"]);
    same_bytes(&place.join("run"));
}

/// Where in the epoch the run's checkpoint is.
fn phase(run: &Path) -> String {
    let weights = picie::net::weights::read(&run.join("checkpoint.safetensors")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&weights.metadata["picie"]).unwrap();
    format!("{} {}", state["phase"].as_str().unwrap(), state["step"])
}

#[test]
fn after_ctrl_c_which_saves_and_says_how_to_go_on() {
    let place = Place::new();
    let mut phases = Vec::new();
    // The signal may come late on a busy machine; one of these hits the training steps.
    for attempt in 0..5 {
        let run = format!("run{attempt}");
        let mut running = place.start(&train(&run), 2);
        running.wait_for("labels");
        running.signal("INT");
        let ran = running.finish();
        assert_eq!(ran.code, Some(130), "{ran:?}");
        holds(&ran.err, &["stopping after this batch", "everything so far is saved"]);
        holds(ran.err.lines().last().unwrap(), &[&format!("picie train --run {run} --resume")]);
        phases.push(phase(&place.join(&run)));
        if phases.last().unwrap().starts_with("train") {
            let ran = place.start(&format!("train --run {run} --resume"), 3).finish().succeeds();
            assert!(!ran.err.contains("untrained"), "the first k-means was done again: {ran:?}");
            return same_bytes(&place.join(&run));
        }
    }
    panic!("no interrupt fell into training: {phases:?}");
}

#[test]
fn a_signal_in_the_second_run_of_a_sweep_stops_the_sweep() {
    let place = Place::new();
    let words = train("mine").replace("train ", "sweep lr --values 1e-4,1e-5 ");
    let running = place.start(&words, 2);
    while !place.join("mine/1e-5-seed-1/run.json").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal("HUP");
    let ran = running.finish();
    assert_eq!(ran.code, Some(130), "{ran:?}");
    holds(
        &ran.err,
        &[
            "stopped: 1 of 2 runs are finished, everything so far is saved; run the same command again",
        ],
    );
    // The same command goes on: the first run is there.
    let ran = place.picie(&words).succeeds();
    assert_eq!(ran.err.matches("starts from").count(), 0, "{ran:?}");
    // Each table stands below its run's name, unless standard output is to be read by programs.
    let [first, second] = ["lr 1e-4, seed 1\n", "lr 1e-5, seed 1\n"];
    let (_, tables) = ran.out.split_once(first).unwrap();
    let (table, _) = tables.split_once(second).unwrap();
    holds(table, &["epoch", "mIoU"]);
    let ran = place.picie(&format!("{words} --json")).succeeds();
    assert_eq!(ran.out.lines().count(), 1, "{ran:?}");
    holds(&ran.err, &[first, second]);
}

#[test]
fn losses_that_are_looked_at_together_make_the_same_run() {
    let place = Place::new();
    place.picie(&(train("run") + " --check-finite 64")).succeeds();
    same_bytes(&place.join("run"));
    holds(&place.picie("train --check-finite 0").err, &["--check-finite", "0 is not in 1..=64"]);
}

#[test]
fn a_run_folder_belongs_to_one_process() {
    let place = Place::new();
    let long = train("run").replace("--epochs 2", "--epochs 99");
    let mut running = place.start(&long, 1);
    running.wait_for("k-means");
    let settings = std::fs::read(place.join("run/run.json")).unwrap();
    for words in [&*train("run"), "train --run run --resume"] {
        let why = place.picie(words).fails();
        holds(
            &why,
            &["run: another process is writing to this run folder", "choose another --run"],
        );
    }
    assert_eq!(std::fs::read(place.join("run/run.json")).unwrap(), settings);
    // SIGTERM is answered as Ctrl-C is.
    running.signal("TERM");
    assert_eq!(running.finish().code, Some(130));
    assert!(place.join("run/checkpoint.safetensors").exists());
}

/// A run is what its images and weights are, not where they lie.
#[test]
fn after_its_images_and_weights_have_moved() {
    let place = Place::new();
    place.scenes("here");
    let weights = crate::util::root().join("src/net/weights/imagenet/resnet18.safetensors");
    std::fs::copy(&weights, place.join("first")).unwrap();
    let words = format!("train --recipe demo --data here --weights first --run run {TINY}");
    let resume = "train --run run --resume";
    let mut running = place.start(&words, 2);
    running.wait_for("evaluate");
    running.signal("TERM");
    assert_eq!(running.finish().code, Some(130));
    std::fs::rename(place.join("here"), place.join("there")).unwrap();
    std::fs::rename(place.join("first"), place.join("moved")).unwrap();
    let why = place.picie(resume).fails();
    holds(&why, &["here: the images of this run are not there any more", "with --data DIR"]);
    // One image fewer.
    let list = place.scenes("fewer").join("curated/train2017/Coco164kFull_Stuff_Coarse_7.txt");
    let ids = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, ids.split_once('\n').unwrap().1).unwrap();
    let why = place.picie(&format!("{resume} --data fewer")).fails();
    holds(&why, &["the checkpoint is of another data set (6 images, now 5)"]);
    for others in ["none", "../../tests/golden/weights/resnet18.pth"] {
        let others = others.replace("../..", &crate::util::root().display().to_string());
        let why = place.picie(&format!("{resume} --data there --weights {others}")).fails();
        holds(&why, &["the run was started from other weights than "]);
    }
    place.picie(&format!("{resume} --data there --weights moved")).succeeds();
    let run = std::fs::read_to_string(place.join("run/run.json")).unwrap();
    holds(&run, &["/there\"", "/moved\""]);
    let changed = "images have changed under their names";
    assert!(!place.picie(resume).succeeds().err.contains(changed));
    // The layout is that which was detected.
    place.picie(&format!("{resume} --dataset coco-stuff")).succeeds();
    holds(&place.picie(&format!("{resume} --dataset folder")).fails(), &["other settings"]);
    // Without a checkpoint the settings know the images, and those that it is evaluated on.
    let checkpoint = place.join("run/checkpoint.safetensors");
    std::fs::rename(&checkpoint, place.join("kept")).unwrap();
    let why = place.picie(&format!("{resume} --data fewer")).fails();
    holds(&why, &["these are other images than the run began with (6 then, 5 now)"]);
    std::fs::rename(place.join("moved"), place.join("elsewhere")).unwrap();
    holds(&place.picie(resume).fails(), &["are not there any more", "with --weights FILE"]);
    std::fs::rename(place.join("kept"), &checkpoint).unwrap();
    let list = place.join("there/curated/val2017/Coco164kFull_Stuff_Coarse_7.txt");
    let ids = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, ids.split_once('\n').unwrap().1).unwrap();
    holds(&place.picie(resume).fails(), &["other validation images", "(3 then, 2 now)"]);
    std::fs::write(&list, ids).unwrap();
    // Another picture under the name of one of them.
    let images = place.join("there/images/train2017");
    let names = files(&images);
    std::fs::copy(images.join(&names[0]), images.join(&names[1])).unwrap();
    holds(&place.picie(resume).succeeds().err, &[changed]);
}
