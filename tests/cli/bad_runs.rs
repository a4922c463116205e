//! Runs that cannot begin, or cannot go on: what was there stays.

use std::os::unix::fs::PermissionsExt;

use picie::net::weights::{self, Data, Tensor, Weights};

use super::{Place, TINY, files, holds, scenes, trained};

fn train(more: &str) -> String {
    format!("train --run run --data {} {TINY} {more}", scenes().display())
}

#[test]
fn a_folder_with_a_run_is_resumed_only_on_request_and_only_as_it_began() {
    let place = Place::new();
    std::fs::create_dir(place.join("run")).unwrap();
    // Settings alone are a run that was killed before its first checkpoint.
    std::fs::copy(trained().join("run.json"), place.join("run/run.json")).unwrap();
    std::fs::write(place.join("run/metrics.jsonl"), "").unwrap();
    let before = std::fs::read(place.join("run/run.json")).unwrap();
    let again = place.picie(&train("")).fails();
    holds(
        &again,
        &[
            "run: this folder already holds a run; add --resume to continue it, or choose another --run",
        ],
    );
    for flag in [
        "--size 64",
        "--stored 96",
        "--batch 3",
        "--batch-cluster 5",
        "--epochs 1",
        "--clusters 4",
        "--lr 0.5",
        "--balance none",
        "--merge cascade",
        "--init-batches 2",
        "--update-every 7",
        "--kmeans-iters 4",
        "--seed 2",
        "--limit 3",
        "--recipe picie",
        "--dataset folder",
        "--split val",
        "--val-split train",
        "--classes 15",
    ] {
        let why = place.picie(&format!("train --run run --resume {flag}")).fails();
        holds(
            &why,
            &[
                "run.json: the run was started with other settings than these flags",
                "leave the flags out",
            ],
        );
    }
    assert_eq!(std::fs::read(place.join("run/run.json")).unwrap(), before);
}

#[test]
fn nothing_to_resume() {
    let place = Place::new();
    holds(
        &place.picie("train --resume").fails(),
        &["there is no run in runs/; say which with --run DIR"],
    );
    holds(
        &place.picie("train --resume --run gone").fails(),
        &["gone: there is no run to resume here; check --run"],
    );
    std::fs::create_dir(place.join("photos")).unwrap();
    holds(
        &place.picie("train --resume --run photos").fails(),
        &["photos: there is no run to resume here; check --run"],
    );
    assert!(files(&place.path()).is_empty(), "{:?}", files(&place.path()));
    std::fs::write(place.join("photos/run.json"), "{}").unwrap();
    let why = place.picie("train --resume --run photos").fails();
    holds(&why, &["run.json: not the settings of this version of picie", "start a new --run"]);
}

#[test]
fn a_damaged_or_foreign_checkpoint_is_not_resumed_and_not_overwritten() {
    let place = Place::new();
    std::fs::create_dir(place.join("run")).unwrap();
    let checkpoint = place.join("run/checkpoint.safetensors");
    let settings = std::fs::read_to_string(trained().join("run.json")).unwrap();
    let fails = |settings: String, bytes: &[u8], parts: &[&str]| {
        std::fs::write(place.join("run/run.json"), settings).unwrap();
        std::fs::write(&checkpoint, bytes).unwrap();
        holds(&place.picie("train --run run --resume").fails(), parts);
        assert!(std::fs::read(&checkpoint).unwrap() == bytes);
    };
    let whole = std::fs::read(trained().join("checkpoint.safetensors")).unwrap();
    let short = ["checkpoint.safetensors: damaged weights file"];
    fails(settings.clone(), &whole[..whole.len() / 2], &short);
    let recipe = settings.replace("\"kmeans_iters\": 3", "\"kmeans_iters\": 4");
    assert_ne!(recipe, settings);
    fails(
        recipe,
        &whole,
        &["the checkpoint is of another recipe", "resume it with the same settings"],
    );
    let images = settings.replace("\"limit\": null", "\"limit\": 5");
    assert_ne!(images, settings);
    fails(images, &whole, &["the checkpoint is of another data set (6 images, now 5)"]);
}

/// Files that look like a checkpoint and would not go on to the same numbers.
#[test]
fn a_checkpoint_that_lacks_something_is_not_resumed() {
    let place = Place::new();
    place.picie(&train("")).succeeds();
    let checkpoint = place.join("run/checkpoint.safetensors");
    let whole = weights::read(&checkpoint).unwrap();
    let fails = |change: &dyn Fn(&mut Weights), says: &str| {
        let mut other = whole.clone();
        change(&mut other);
        weights::write(&checkpoint, &other).unwrap();
        let why = place.picie("train --run run --resume").fails();
        holds(&why, &["run/checkpoint.safetensors: ", says]);
    };
    // As the file of an epoch has none.
    fails(
        &|w| w.tensors.retain(|name, _| !name.starts_with("adam.")),
        "adam.m.conv1.weight is missing or of another kind; remove this file: the run begins anew",
    );
    for (name, value) in [("layer2.0.bn1.running_var", -1.0), ("adam.v.conv1.weight", -0.5)] {
        let negative = |w: &mut Weights| {
            let Data::F32(values) = &mut w.tensors.get_mut(name).unwrap().data else { panic!() };
            values[3] = value;
        };
        fails(&negative, &format!("{name} holds the negative variance {value}; its training"));
    }
    // Three steps an epoch, and two epochs are done.
    let state = |w: &mut Weights, old: &str, new: &str| {
        let text = w.metadata.get_mut("picie").unwrap();
        assert!(text.contains(old), "{text}");
        *text = text.replace(old, new);
    };
    for (old, new) in [
        ("\"adam_step\":6", "\"adam_step\":7"),
        ("\"step\":0", "\"step\":2"),
        ("\"epoch\":3", "\"epoch\":0"),
        ("\"epoch\":3", "\"epoch\":18446744073709551615"),
    ] {
        fails(&|w| state(w, old, new), "its number of steps is not one of this run");
    }
    // As if it were stopped in training, with this label everywhere, found so many times.
    let labelled = |w: &mut Weights, label: u16, count: i64| {
        state(w, "\"phase\":\"k-means\"", "\"phase\":\"train\"");
        let mut counts = vec![0; 9];
        counts[4] = count;
        for view in 1..=2 {
            let labels = Tensor { shape: vec![6, 8, 8], data: Data::U16(vec![label; 6 * 8 * 8]) };
            let counts = Tensor { shape: vec![9], data: Data::I64(counts.clone()) };
            w.tensors.insert(format!("labels{view}"), labels);
            w.tensors.insert(format!("label_counts{view}"), counts);
        }
    };
    fails(&|w| labelled(w, 9, 6 * 8 * 8), "labels1 holds a label that no cluster has");
    fails(&|w| labelled(w, 4, 6 * 8 * 8 - 1), "label_counts1 does not count its labels");
    let mut sound = whole.clone();
    labelled(&mut sound, 4, 6 * 8 * 8);
    weights::write(&checkpoint, &sound).unwrap();
    place.picie("train --run run --resume").succeeds();
}

#[test]
fn places_that_cannot_be_written() {
    let place = Place::new();
    std::fs::write(place.join("run"), "a file").unwrap();
    holds(&place.picie(&train("")).fails(), &["run: file exists; choose another path"]);
    assert_eq!(std::fs::read(place.join("run")).unwrap(), b"a file");
    let closed = place.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(closed.join("x"), "").is_ok() {
        println!("not tested: this user may write anywhere");
        return;
    }
    let words = train("").replace("--run run", "--run closed/run");
    holds(&place.picie(&words).fails(), &["permission denied; check the permissions"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_an_error_and_a_closed_pipe_is_none() {
    let place = Place::new();
    let full = place.shell("exec >/dev/full", "devices").fails();
    holds(&full, &["standard output: no space left on device; free some space"]);
    // By the time it writes, nobody reads any more.
    let closed = place.shell("(sleep 0.3; \"$0\" devices; echo exit $? >&2) | true", "--version");
    assert_eq!(closed.err, "exit 0\n");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint() {
    let place = Place::new();
    // However seldom the losses are looked at, the step is the one that it was first seen in.
    for seldom in ["", " --check-finite 64"] {
        let first = place.picie(&train(&format!("--lr 1e30{seldom}"))).fails();
        let first =
            first.strip_prefix("loss_within is NaN at step 2 of the run, in epoch 1: bn1.running_");
        holds(first.unwrap(), &[" holds ", "; start again with a lower --lr"]);
        assert!(!place.join("run/checkpoint.safetensors").exists());
        std::fs::remove_dir_all(place.join("run")).unwrap();
    }
    // Adam divides this rate by a tenth, more than f32 holds: the weights are infinite, and no loss
    // has seen them.
    let ran = place.picie(&train("--lr 1e38").replace("--batch 2", "--batch 6")).fails();
    holds(&ran, &["conv1.weight holds ", " at step 1 of the run, in epoch 1; start again"]);
    assert!(!place.join("run/checkpoint.safetensors").exists());
    std::fs::remove_dir_all(place.join("run")).unwrap();
    // One step an epoch: the loss of the first is still finite, and it is the next epoch's k-means
    // that finds the damage.
    let ran = place.picie(&train("--lr 1e30").replace("--batch 2", "--batch 6")).fails();
    holds(
        &ran,
        &[
            "the k-means objective of view 1 is ",
            " at step 1 of the run, in epoch 2: bn1.running_var holds ",
        ],
    );
    holds(
        &ran,
        &["; the last checkpoint is run/checkpoint.safetensors: start a new --run from it"],
    );
    holds(&ran, &["--weights run/checkpoint.safetensors and a lower --lr"]);
    assert!(
        place.join("run/checkpoint.safetensors").exists()
            && !place.join("run/epoch-02.safetensors").exists()
    );
    assert_eq!(
        std::fs::read_to_string(place.join("run/metrics.jsonl")).unwrap().lines().count(),
        1
    );
}
