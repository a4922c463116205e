//! Runs that are stopped, killed and resumed, segmented with and evaluated, in random order for a
//! stated time.

use std::time::{Duration, Instant, SystemTime};

use picie::base::rng::{Rng, Stream};

use super::{tiny, use_of};
use crate::cli::{Place, files, scenes};

/// A number from the environment.
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// What a command writes that looks at a network: the scores of `eval`, or the pictures of
/// `segment`.
fn looked(place: &Place, words: &str) -> Vec<Vec<u8>> {
    let said = place.picie(words).succeeds().out.into_bytes();
    let out = place.join("out");
    let written = if out.exists() { files(&out) } else { Vec::new() };
    let pictures = written.iter().map(|name| std::fs::read(out.join(name)).unwrap());
    [said].into_iter().chain(pictures).collect()
}

/// Does one more thing with the run in `place`, in which it is begun, or goes on until it is
/// stopped, killed, or at its end. Returns whether it is.
fn goes_on(place: &Place, rng: &mut Rng, stops: &mut usize) -> bool {
    let begun = place.join("run/run.json").exists();
    let words = if begun { "train --run run --resume" } else { &tiny() };
    let mut running = place.start(words, 1 + rng.below(3));
    if rng.below(3) > 0 {
        std::thread::sleep(Duration::from_millis(rng.below(900) as u64));
        if !running.ended() {
            running.signal(["KILL", "INT", "TERM", "HUP"][rng.below(4)]);
            *stops += 1;
        }
    }
    let ran = running.finish();
    assert!(matches!(ran.code, None | Some(0 | 129 | 130 | 143)), "{ran:#?}");
    ran.code == Some(0)
}

/// Runs end with the same bytes, however often they were stopped, and so do the answers of what
/// looks at them; memory and open files of a long run stay what they were.
#[test]
#[ignore = "as long as SOAK_SECONDS says; .ci/soak"]
fn soak() {
    let seconds = given("SOAK_SECONDS").unwrap_or(60);
    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = given("SOAK_SEED").unwrap_or(clock);
    println!("SOAK_SECONDS={seconds} SOAK_SEED={seed}");
    let mut rng = Rng::new(seed, Stream::Other, 0, 0);
    let whole = Place::new();
    whole.picie(&tiny()).succeeds();
    let weights = |place: &Place| std::fs::read(place.join("run/checkpoint.safetensors")).unwrap();
    let (want, scenes) = (weights(&whole), scenes().display());
    let checkpoint = whole.join("run/epoch-02.safetensors");
    let looks = [
        format!("eval --checkpoint {} --data {scenes}", checkpoint.display()),
        format!(
            "segment --checkpoint {} --out out {scenes}/images/val2017/000000000001.jpg",
            checkpoint.display()
        ),
    ];
    let answers = looks.each_ref().map(|words| looked(&Place::new(), words));
    // The scores; the words, and at least a label map, a picture and the table of segments.
    assert!(answers[0].len() == 1 && answers[1].len() >= 4);

    // More epochs than there is time for.
    let epochs = format!("--epochs {}", 100 + 20 * seconds);
    let long_place = Place::new();
    let mut long = long_place.start(&(tiny().replace("--epochs 2", &epochs) + " --quiet"), 1);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut runs, mut stops, mut looked_at) = (0, 0, 0);
    let (mut place, mut used) = (Place::new(), Vec::new());
    while Instant::now() < until {
        match rng.below(5) {
            look @ 0..2 => {
                assert!(looked(&Place::new(), &looks[look]) == answers[look], "{}", looks[look]);
                looked_at += 1;
            }
            _ if goes_on(&place, &mut rng, &mut stops) => {
                assert!(weights(&place) == want, "other bytes after {runs} runs and {stops} stops");
                (place, runs) = (Place::new(), runs + 1);
            }
            _ => {}
        }
        assert!(!long.ended(), "the long run ended");
        used.extend(use_of(long.id()));
        // Nobody wants the files of all of its epochs.
        for name in files(&long_place.join("run")) {
            if name.to_string_lossy().starts_with("epoch-") {
                std::fs::remove_file(long_place.join("run").join(name)).unwrap();
            }
        }
    }
    long.signal("INT");
    let ran = long.finish();
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert!(used.len() > 10 && runs > 0 && stops > 0 && looked_at > 0, "too little time");
    // The first third is for what is made once.
    let (early, late) = (used[used.len() / 3], used[used.len() - 1]);
    println!("{runs} runs, {stops} stops, {looked_at} looks");
    println!("memory of the long run: {} KiB, at last {} KiB", early.0, late.0);
    println!("open files of the long run: {}, at last {}", early.1, late.1);
    assert!(late.0 <= early.0 + early.0 / 20 + 4096, "memory grows: {used:?}");
    assert!(late.1 <= early.1 + 1, "open files grow: {used:?}");
}
