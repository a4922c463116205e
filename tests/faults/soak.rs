//! A run that is stopped, killed, resumed, segmented with and evaluated, in random order for a
//! stated time.

use std::time::{Duration, Instant};

use picie::base::rng::{Rng, Stream};

use super::tiny;
use crate::cli::{Place, scenes};

/// Seconds that the soak takes: `SOAK_SECONDS`, or a minute.
fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS").map_or(60, |text| text.parse().unwrap())
}

/// Memory in KiB and open files of a process, as the system says.
fn use_of(pid: u32) -> Option<(u64, usize)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some((line.split_whitespace().next()?.parse().ok()?, files))
}

/// Runs end with the same bytes, however often they were stopped; memory and open files of a long
/// run stay what they were.
#[test]
#[ignore = "as long as SOAK_SECONDS says; .ci/soak"]
fn soak() {
    let until = Instant::now() + Duration::from_secs(seconds());
    let mut rng = Rng::new(u64::from(std::process::id()), Stream::Other, 0, 0);
    let whole = Place::new();
    whole.picie(&tiny()).succeeds();
    let weights = |place: &Place| std::fs::read(place.join("run/checkpoint.safetensors")).unwrap();
    let (want, scenes) = (weights(&whole), scenes().display());
    let checkpoint = whole.join("run/epoch-02.safetensors");
    let eval = format!("eval --checkpoint {} --data {scenes}", checkpoint.display());
    let segment = format!(
        "segment --checkpoint {} --out out {scenes}/images/val2017/000000000001.jpg",
        checkpoint.display()
    );
    let answer = whole.picie(&eval).succeeds().out;
    let (mut runs, mut stops) = (0, 0);
    let long = tiny().replace("--epochs 2", "--epochs 99999") + " --quiet";
    let long_place = Place::new();
    let long = long_place.start(&long, 1);
    let mut used: Vec<(u64, usize)> = Vec::new();
    while Instant::now() < until {
        let place = Place::new();
        let begin = tiny();
        loop {
            let begun = place.join("run/run.json").exists();
            let words = if begun { "train --run run --resume" } else { &begin };
            if rng.below(4) == 0 {
                place.picie(words).succeeds();
                break;
            }
            let mut running = place.start(words, 1 + rng.below(3));
            std::thread::sleep(Duration::from_millis(rng.below(900) as u64));
            if !running.ended() {
                running.signal(["KILL", "INT", "TERM", "HUP"][rng.below(4)]);
                stops += 1;
            }
            let ran = running.finish();
            assert!(matches!(ran.code, None | Some(0 | 129 | 130 | 143)), "{ran:#?}");
        }
        assert!(weights(&place) == want, "other bytes after {runs} runs and {stops} stops");
        assert_eq!(whole.picie(&eval).succeeds().out, answer);
        place.picie(&segment).succeeds();
        used.extend(use_of(long.id()));
        runs += 1;
    }
    long.signal("INT");
    let ran = long.finish();
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    // The first third is for what is made once.
    let (early, late) = (used[used.len() / 3], used[used.len() - 1]);
    println!(
        "{runs} runs, {stops} stops; a long run used {early:?} (KiB, files), at last {late:?}"
    );
    assert!(late.0 <= early.0 + early.0 / 20 + 4096, "memory grows: {used:?}");
    assert!(late.1 <= early.1 + 1, "open files grow: {used:?}");
}
