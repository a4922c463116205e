//! `picie bench --model`: an epoch on a GPU that is not there.

use serde_json::Value;

use super::{Place, holds};

/// PiCIE at the paper's sizes, on few images.
const PAPER: &str = "bench --recipe picie --images 512 --model";

fn report(place: &Place, words: &str) -> Value {
    serde_json::from_str(&place.picie(&format!("{words} --json")).succeeds().out).unwrap()
}

fn seconds(report: &Value, phase: &str) -> f64 {
    let phases = report["phases"].as_array().unwrap();
    let found = phases.iter().find(|p| p["name"] == phase);
    found.unwrap_or_else(|| panic!("no {phase} in {phases:?}"))["samples_s"][0].as_f64().unwrap()
}

#[test]
fn an_epoch_is_the_sum_of_its_ops_and_no_op_beats_its_floor_by_much() {
    let place = Place::new();
    let report = report(&place, &format!("{PAPER} h200"));
    let sum = |rows: &str, of: &dyn Fn(&Value) -> f64| -> f64 {
        report[rows].as_array().unwrap().iter().map(of).sum()
    };
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap();
    let ops = sum("ops", &|row| number(row, "mean_us") * number(row, "calls") / 1e6);
    let kernels = sum("kernels", &|row| number(row, "seconds"));
    let launches = sum("kernels", &|row| number(row, "launches"));
    let epoch = seconds(&report, "epoch");
    let near = |a: f64, b: f64| (a - b).abs() <= 0.01 * b;
    // Waits of the host are no op's.
    assert!(near(ops, kernels + 1.2e-6 * launches), "{ops} {kernels} {launches}");
    assert!(ops < epoch && epoch < 1.1 * ops, "{ops} {epoch}");
    for row in report["ops"].as_array().unwrap() {
        // What the kernel before left in the L2 cache need not come from memory: up to half.
        let large = number(row, "floor_us") > 20.0;
        assert!(!large || number(row, "efficiency_percent") <= 150.0, "{row}");
    }
}

#[test]
fn more_bandwidth_helps_and_convolutions_stay_as_they_are() {
    let place = Place::new();
    let [h100, h200] = ["h100", "h200"].map(|gpu| report(&place, &format!("{PAPER} {gpu}")));
    assert!(seconds(&h200, "train") < seconds(&h100, "train"));
    let convolutions = |report: &Value| -> f64 {
        let rows = report["kernels"].as_array().unwrap().iter();
        let ours = rows.filter(|row| row["kernel"].as_str().unwrap().starts_with("cuDNN"));
        ours.map(|row| row["seconds"].as_f64().unwrap()).sum()
    };
    let ratio = convolutions(&h200) / convolutions(&h100);
    assert!((0.9..=1.0).contains(&ratio), "{ratio}");
}

#[test]
fn tables_say_that_nothing_was_measured() {
    let place = Place::new();
    let ran = place.picie("bench --model h100 --images 256 --recipe picie-released").succeeds();
    holds(
        &ran.out,
        &["H100 on paper, bf16", "predicted, not measured; convolutions are assumed", "bound by"],
    );
    for flag in ["--data photos", "--deterministic", "--check-finite 2"] {
        let ran = place.picie(&format!("bench --model h100 {flag}"));
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        holds(&ran.err, &[flag.split(' ').next().unwrap()]);
    }
}

/// What was measured on such a GPU before is believed, and how much that is.
#[test]
fn convolutions_take_the_times_that_are_kept() {
    let place = Place::new();
    let train = |place: &Place| {
        let report = report(place, &format!("{PAPER} h200"));
        (seconds(&report, "train"), report["assumed"].as_str().unwrap().to_string())
    };
    let (before, said) = train(&place);
    assert!(said.starts_with("convolutions are assumed"), "{said}");
    // One of the network's convolutions takes 10 ms.
    let shape = "256×80×80×64 ∗ 64×3×3, stride 1, padding 1";
    let key = format!("cuDNN 91200, NVIDIA H200: weight gradient of {shape} in bf16");
    let entry = serde_json::json!({ "tag": "1", "microseconds": 10_000.0, "workspace": 0 });
    let file = place.cache().join("picie/cudnn-engines.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, serde_json::json!({ key: entry }).to_string()).unwrap();
    let (after, said) = train(&place);
    // Four of them in each of four steps; some 0.5 ms each was assumed.
    assert!((0.14..0.16).contains(&(after - before)), "{before} {after}");
    holds(&said, &["16 convolutions take the times", "were not measured", "are assumed"]);
}
