//! Ctrl-C, SIGTERM and SIGHUP in the long phases of every command: it stops soon, says what was
//! kept in one line, and leaves nothing broken behind.

use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::place::Running;
use super::{Place, Ran, TINY, files, holds, scenes, trained};

/// Images of [`many`]: to decode them takes far longer than any test here waits.
const MANY: usize = 6000;

/// A data set of links to the one training and the one validation scene.
fn many() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = trained().parent().unwrap().join("many");
        for (split, from) in [("train2017", "000000000001"), ("val2017", "000000000002")] {
            for (tree, kind) in [("images", "jpg"), ("annotations", "png")] {
                let to = dir.join(tree).join(split);
                std::fs::create_dir_all(&to).unwrap();
                let one = scenes().join(tree).join(split).join(format!("{from}.{kind}"));
                assert!(one.exists());
                (0..MANY).for_each(|i| symlink(&one, to.join(format!("{i:012}.{kind}"))).unwrap());
            }
            let list: String = (0..MANY).map(|i| format!("{i:012}\n")).collect();
            std::fs::create_dir_all(dir.join("curated").join(split)).unwrap();
            std::fs::write(
                dir.join("curated").join(split).join("Coco164kFull_Stuff_Coarse_7.txt"),
                list,
            )
            .unwrap();
        }
        dir
    })
}

/// Sends the signal, and fails unless the command stops in time with one line that ends in `says`.
#[track_caller]
fn stops(running: Running, signal: &str, says: &str) -> Ran {
    let at = Instant::now();
    running.signal(signal);
    let ran = running.finish();
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    // A batch takes some tenths of a second here; on a busy machine more.
    assert!(at.elapsed() < Duration::from_secs(20), "it took {:?}: {ran:#?}", at.elapsed());
    let lines: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("picie: ")).collect();
    assert_eq!(lines.len(), 1, "{ran:#?}");
    holds(lines[0], &["picie: stopped: ", says]);
    ran
}

const NOTHING: &str = "nothing was written; run the same command again";

#[test]
fn commands_stop_while_they_read_images() {
    let place = Place::new();
    let (data, checkpoint) = (many().display(), trained().join("epoch-02.safetensors"));
    let checkpoint = checkpoint.display();
    for (words, signal) in [
        (format!("train --recipe demo --data {data} --run run {TINY}"), "INT"),
        (format!("eval --checkpoint {checkpoint} --data {data}"), "TERM"),
        (format!("baselines --data {data} --clusters 9 --size 64"), "HUP"),
        (format!("compare --checkpoint {checkpoint} --data {data} --out sheet.png"), "INT"),
        (
            format!(
                "neighbors --checkpoint {checkpoint} --data {data} --query 000000000001:9,9 --out sheet.png"
            ),
            "TERM",
        ),
        (format!("sweep lr --values 1e-4 --data {data} --run mine {TINY}"), "INT"),
        (format!("bench --data {data} --images {MANY} --size 64"), "HUP"),
    ] {
        let mut running = place.start(&words, 1);
        running.wait_for_handlers();
        std::thread::sleep(Duration::from_millis(200));
        let says = if words.starts_with("sweep") { "0 of 1 runs are finished" } else { NOTHING };
        stops(running, signal, says);
        assert_eq!(files(&place.path()), [] as [PathBuf; 0], "{words}");
    }
}

#[test]
fn commands_stop_in_their_main_phase() {
    let place = Place::new();
    let (data, checkpoint) = (many().display(), trained().join("epoch-02.safetensors"));
    let checkpoint = checkpoint.display();
    for (words, after) in [
        // Some 5 s of evaluation.
        (
            format!("eval --checkpoint {checkpoint} --data {data} --limit 64 --size 256"),
            "read images",
        ),
        // Without labels, and k-means first.
        (
            format!(
                "eval --checkpoint {checkpoint} --data {data}/images/val2017 --limit 64 --size 256"
            ),
            "read images",
        ),
        (format!("baselines --data {data} --clusters 9 --limit 64 --size 128"), "Lab "),
        ("bench --images 8 --size 64 --batch 4 --batch-cluster 4 --epochs 999".to_string(), ""),
        // The number of clusters is being chosen.
        (
            format!("train --data {data}/images/train2017 --recipe photos --run run --limit 64"),
            "read for pictures",
        ),
    ] {
        let mut running = place.start(&words, 1);
        if after.is_empty() {
            running.wait_for_handlers();
            std::thread::sleep(Duration::from_millis(700));
        } else {
            running.wait_for(after);
        }
        stops(running, "INT", NOTHING);
        assert_eq!(files(&place.path()), [] as [PathBuf; 0], "{words}");
    }
}

#[test]
fn segment_says_how_many_photos_are_done_and_each_of_them_is_whole() {
    let place = Place::new();
    let words = format!(
        "segment --checkpoint {} --out out",
        trained().join("epoch-02.safetensors").display()
    );
    let photos = format!(" {}/images/train2017/*.jpg", many().display());
    let running = place.start(&(words + &photos), 1);
    let out = place.join("out");
    let written = || if out.exists() { files(&out) } else { Vec::new() };
    let start = Instant::now();
    while written().len() < 6 {
        assert!(start.elapsed() < Duration::from_secs(60), "no photo was segmented");
        std::thread::sleep(Duration::from_millis(5));
    }
    let ran =
        stops(running, "INT", &format!(" of {MANY} photos are done; run it again with the others"));
    // What is said of all of them is written, too.
    let (files, all): (Vec<_>, Vec<_>) =
        written().into_iter().partition(|file| file.to_string_lossy().contains('-'));
    assert_eq!(all, ["segments.json", "sheet.png"].map(PathBuf::from));
    holds(&ran.err, &[&format!("stopped: {} of", files.len() / 2)]);
    files.iter().for_each(|file| drop(image::open(out.join(file)).unwrap()));
}

#[test]
fn a_pipe_that_nobody_writes_to_is_left() {
    let place = Place::new();
    assert!(place.command("mkfifo", "pipe.jpg").status().unwrap().success());
    let checkpoint = trained().join("epoch-02.safetensors");
    let words = format!("segment --checkpoint {} --out out pipe.jpg", checkpoint.display());
    let running = place.start(&words, 1);
    // It can be opened for writing once somebody reads it.
    let (start, flags) = (Instant::now(), OFlags::NONBLOCK.bits() as i32);
    let open = || File::options().write(true).custom_flags(flags).open(place.join("pipe.jpg")).ok();
    let writer = loop {
        if let Some(writer) = open() {
            break writer;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "nobody reads the pipe");
        std::thread::sleep(Duration::from_millis(5));
    };
    // Who heeds no signal is not waited for without end.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(10));
        drop(writer);
    });
    stops(running, "INT", NOTHING);
}

#[test]
fn scenes_leave_nothing_behind() {
    let place = Place::new();
    let mut running = place.start("scenes drawn --train 9000", 1);
    running.wait_for_handlers();
    std::thread::sleep(Duration::from_millis(200));
    stops(running, "TERM", NOTHING);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// What a killed process leaves the next one removes, unless it is still being written.
#[test]
fn scenes_that_were_killed_are_gone_with_the_next() {
    let place = Place::new();
    let begun = || std::fs::read_dir(place.path()).unwrap().flatten().next().map(|e| e.path());
    let running = place.start("scenes drawn --train 9000", 1);
    let start = Instant::now();
    while begun().is_none_or(|folder| files(&folder).is_empty()) {
        assert!(start.elapsed() < Duration::from_secs(60), "no scene was drawn");
        std::thread::sleep(Duration::from_millis(5));
    }
    place.picie("scenes others --train 1 --val 1").succeeds();
    assert!(begun().unwrap().exists() && place.path().read_dir().unwrap().count() == 2);
    running.signal("KILL");
    assert_eq!(running.finish().code, None);
    place.picie("scenes drawn --train 1 --val 1").succeeds();
    assert_eq!(place.path().read_dir().unwrap().count(), 2);
}

/// A run that goes on until it is stopped, in its second epoch.
fn endless(place: &Place, before: &str) -> Running {
    let words = format!("train --recipe demo --data {} --run run {TINY}", scenes().display());
    let mut running = place.start_after(before, &words.replace("--epochs 2", "--epochs 99"), 1);
    running.wait_for("epoch 1 of 99");
    running
}

#[test]
fn a_second_signal_ends_at_once_and_leaves_no_half_file() {
    let place = Place::new();
    for attempt in 0..5 {
        let mut running = endless(&place, ":");
        running.signal("INT");
        running.wait_for("stopping after this batch");
        // The checkpoint is being written; by then the two signals are no longer taken for one.
        let (run, start) = (place.join("run"), Instant::now());
        let writing =
            || files(&run).iter().any(|file| file.to_string_lossy().starts_with(".writing"));
        while start.elapsed() < Duration::from_millis(120)
            || (!writing() && start.elapsed() < Duration::from_secs(1))
        {}
        running.signal("TERM");
        let ran = running.finish();
        assert_eq!(ran.code, Some(130), "{ran:#?}");
        assert!(!writing(), "{:?}", files(&run));
        if !ran.err.contains("picie: stopped") {
            println!("ended while it was saving, attempt {attempt}");
            // What was saved before is there.
            let resumed = place.start("train --run run --resume", 1);
            return stops_in_training(resumed, "INT");
        }
        std::fs::remove_dir_all(&run).unwrap();
    }
    panic!("the checkpoint was always whole before the second signal");
}

fn stops_in_training(mut running: Running, signal: &str) {
    running.wait_for("k-means");
    stops(
        running,
        signal,
        "everything so far is saved; continue with: picie train --run run --resume",
    );
}

#[test]
fn a_second_signal_does_not_wait_for_the_batch() {
    let place = Place::new();
    let words = format!("train --recipe demo --data {} --run run {TINY}", scenes().display());
    // The laterals look at all images in one batch, which takes some seconds.
    let large = words
        .replace("--size 32 --stored 64", "--size 640 --stored 640")
        .replace("cluster 4", "cluster 6");
    let mut running = place.start(&large, 1);
    running.wait_for("read labels");
    running.signal("INT");
    running.wait_for("stopping after this batch");
    std::thread::sleep(Duration::from_millis(150));
    running.signal("INT");
    let ran = running.finish();
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert!(!ran.err.contains("picie: stopped"), "it waited: {ran:#?}");
}

#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    let place = Place::new();
    let mut running = endless(&place, "trap '' INT HUP");
    for signal in ["INT", "HUP"] {
        running.signal(signal);
        running.wait_for("epoch ");
    }
    stops_in_training(running, "TERM");
}

#[test]
fn a_terminal_that_is_gone_costs_nothing() {
    let place = Place::new();
    let mut running = endless(&place, ":");
    running.stop_listening();
    let rows = || std::fs::read_to_string(place.join("run/metrics.jsonl")).unwrap().lines().count();
    let before = rows();
    while rows() < before + 1 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // It went on although nobody reads, and is stopped as ever: twice, as the kernel and the shell
    // do when a terminal closes.
    running.signal("HUP");
    running.signal("HUP");
    assert_eq!(running.finish().code, Some(130));
    let weights = picie::net::weights::read(&place.join("run/checkpoint.safetensors")).unwrap();
    assert!(weights.metadata["picie"].contains("\"phase\""));
}
