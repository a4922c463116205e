//! What the place cannot do: it is found before the first step, or done without.

use super::{faulty, shim, tiny};
use crate::cli::{Place, holds, scenes, trained};

/// Whatever the limit on memory, a run is refused in one line before it has written anything, or
/// goes through to its report.
#[test]
fn a_limit_on_memory_is_found_before_the_first_step() {
    let words = format!(
        "train --recipe demo --run run --clusters 9 --epochs 1 --size 32 --stored 64 --batch 4 \
         --batch-cluster 4 --init-batches 1 --eval-size 32 --data {}",
        scenes().display()
    );
    let (mut refused, mut done) = (0, 0);
    for flag in ["-v", "-d"] {
        for kib in (200_000..=650_000).step_by(50_000) {
            let place = Place::new();
            let before = format!("export RAYON_NUM_THREADS=2; ulimit {flag} {kib}");
            let ran = place.shell(&before, &words);
            if ran.code == Some(0) {
                assert!(place.join("run/report.html").exists());
                done += 1;
            } else {
                let why = ran.fails();
                holds(&why, &[" MiB", " free"]);
                assert!(!why.contains(" 0 MiB are free"), "the limit was run into: {why}");
                assert!(!place.join("run").exists(), "{kib}");
                refused += 1;
            }
        }
    }
    assert!(refused > 4 && done > 2, "{refused} refused, {done} done");
}

#[test]
fn threads_that_cannot_be_started_are_done_without() {
    let Some(shim) = shim() else { return };
    // The first thread is the one that heeds signals. The fourth alone is missing in a pool of
    // four; none at all can be started.
    for (missing, threads) in [("4-4", "2"), ("1-999", "1")] {
        let place = Place::new();
        let env = [("RAYON_NUM_THREADS", "4"), ("FAULT_THREADS", missing)];
        let ran = faulty(&place, shim, &env, &tiny()).succeeds();
        let line = format!("warning: {threads} of 4 threads compute: the system starts no more (");
        holds(&ran.err, &[&line, "see ulimit -u"]);
    }
}

/// Of a full disk and of `ulimit -f` less is left than a checkpoint takes.
#[test]
fn a_checkpoint_that_has_no_room_is_found_before_the_first_step() {
    let place = Place::new();
    let short = place.shell("ulimit -f 4000", &tiny()).fails();
    holds(&short, &["run: a checkpoint takes 9 MiB, and files may have ", "ulimit -f"]);
    assert!(!place.join("run").exists());
    // What needs no checkpoint fails at its write, and is not killed by the signal of the limit.
    let checkpoint = trained().join("epoch-02.safetensors");
    let scene = scenes().join("images/val2017/000000000001.jpg");
    let words =
        format!("segment --checkpoint {} --out out {}", checkpoint.display(), scene.display());
    assert_eq!(place.shell("ulimit -f 1", &words).code, Some(1));
}
