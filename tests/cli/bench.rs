//! `picie bench` on the CPU engine: what it reports, and how it compares.

use std::path::PathBuf;

use serde_json::Value;

use super::{Place, holds};
use crate::util::root;

/// An epoch within a tenth of a second.
const TINY: &str = "bench --recipe demo --images 4 --size 32 --stored 32 --batch 2 --batch-cluster 4 --clusters 3 --warm-up 1 --device cpu";

fn measured(place: &Place, epochs: usize, name: &str) -> Value {
    let ran = place.picie(&format!("{TINY} --epochs {epochs} --json")).succeeds();
    std::fs::write(place.join(name), &ran.out).unwrap();
    serde_json::from_str(&ran.out).unwrap()
}

/// A report whose times are those of `report`, as quiet as can be: five epochs that differ by some
/// thousandths, the op `op` slower by a factor.
fn quiet(place: &Place, report: &Value, name: &str, (op, slower): (&str, f64)) {
    let mut report = report.clone();
    let five = |middle: f64| {
        (0..5).map(|i| middle * (1.0 + 0.001 * f64::from(i))).collect::<Vec<f64>>().into()
    };
    for phase in report["phases"].as_array_mut().unwrap() {
        phase["samples_s"] = five(phase["seconds"]["median"].as_f64().unwrap());
    }
    for row in report["ops"].as_array_mut().unwrap() {
        let factor = if row["op"] == op { slower } else { 1.0 };
        row["epochs_us"] = five(factor * row["us"]["median"].as_f64().unwrap());
    }
    std::fs::write(place.join(name), report.to_string()).unwrap();
}

#[test]
fn a_report_has_samples_and_fits_a_terminal() {
    let place = Place::new();
    let report = measured(&place, 2, "a.json");
    assert_eq!(report["schema"], 1);
    let rows = |name: &str| report[name].as_array().unwrap().clone();
    for phase in rows("phases") {
        assert_eq!(
            (&phase["seconds"]["n"], phase["samples_s"].as_array().unwrap().len()),
            (&2.into(), 2)
        );
        let part = |name: &str| phase[name].as_f64().unwrap();
        let sum = part("ops_s") + part("wait_s") + part("host_s") + part("rest_s");
        let all = part("traced_s");
        assert!((sum - all).abs() <= 1e-6 && part("ops_s") > 0.0, "{phase}");
        // What is timed lies within the epochs in which it is.
        assert!(part("rest_s") >= -1e-3 * all, "{phase}");
    }
    for op in rows("ops") {
        let calls = op["calls"].as_u64().unwrap();
        assert_eq!(op["us"]["n"], 2 * calls, "{op}");
        assert_eq!(op["samples_us"].as_array().unwrap().len() as u64, 2 * calls);
        assert!(op["floor_us"].as_f64().unwrap() > 0.0, "{op}");
    }
    let share: f64 = rows("kinds").iter().map(|row| row["share_percent"].as_f64().unwrap()).sum();
    assert!((share - 100.0).abs() <= 1e-6, "{share}");
    let start: Vec<Value> = rows("startup").iter().map(|row| row["what"].clone()).collect();
    assert!(start.len() == 10 && start.contains(&"epoch 1 to warm up".into()), "{start:?}");
    // Linux tells what others take; a CPU has no other state.
    let conditions = rows("conditions");
    assert!(conditions.len() == 2 && conditions[0]["throttled"].is_null(), "{conditions:?}");
    assert_eq!(conditions[0]["others_percent"].is_f64(), cfg!(target_os = "linux"));

    let text = place.picie("bench --from a.json --top 3").succeeds().out;
    holds(
        &text,
        &["CPU, ", "4 images stored at 32²", "once, in no figure below", "--top 0", "conv_forward"],
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let all = place.picie("bench --from a.json --top 0").succeeds().out;
    assert!(all.lines().count() > text.lines().count() + 40, "{all}");
}

/// How often `part` is in `text`.
fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_page_a_trace_and_tables_are_written() {
    let place = Place::new();
    let files = "--report a.html --trace trace.json --csv a.csv";
    let ran = place.picie(&format!("{TINY} --epochs 2 --json {files}")).succeeds();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let read = |name: &str| std::fs::read_to_string(place.join(name)).unwrap();
    let ops = report["ops"].as_array().unwrap();

    let html = read("a.html");
    let with_flops = ops.iter().filter(|op| op["flops"].as_f64().unwrap() > 0.0).count();
    // A point an epoch and phase, and one an op with FLOPs.
    assert_eq!(count(&html, "<circle"), 2 * 4 + with_flops);
    assert_eq!(count(&html, "class=\"strip\""), 4 + 24.min(ops.len()));
    holds(&html, &["What to look at first", "Roofline", "fastest cache", "</html>"]);
    // Nothing comes from elsewhere, and no number is missing.
    for part in ["http", "src=", "@import", "url(", "NaN", ">inf", "\"inf"] {
        assert!(!html.contains(part), "{part} is in the page");
    }
    for [open, close] in
        [["<div", "</div"], ["<section", "</section"], ["<tr", "</tr"], ["<svg", "</svg"]]
    {
        assert_eq!(count(&html, open), count(&html, close), "{open}");
    }

    std::fs::write(place.join("b.json"), &ran.out).unwrap();
    place.picie("bench --from b.json --report a.svg").succeeds();
    let svg = read("a.svg");
    assert!(svg.starts_with("<svg xmlns=") && count(&svg, "<circle") == with_flops);
    place.picie("bench --from b.json --report a.SVG").succeeds();
    assert_eq!(read("a.SVG"), svg);

    let trace: Value = serde_json::from_str(&read("trace.json")).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let on = |track: usize| events.iter().filter(|e| e["ph"] == "X" && e["tid"] == track).count();
    let calls: u64 = ops.iter().map(|op| op["calls"].as_u64().unwrap()).sum();
    assert_eq!(on(4) as u64, calls);
    assert_eq!((on(0), on(1), on(2)), (1, 3, 2), "an epoch, three phases, two steps");
    assert!(on(3) > 50 && on(6) > 3);

    let csv = read("a.csv");
    assert_eq!(csv.lines().count(), 1 + 4 + ops.len());
    let columns =
        |line: &str| line.split('"').step_by(2).map(|part| count(part, ",")).sum::<usize>();
    assert!(csv.lines().all(|line| columns(line) == 14), "{csv}");
    assert!(place.picie("bench --from a.html").fails().contains("not a report"));
    holds(
        &place.picie("bench --model h200 --images 256 --report no/where.html").fails(),
        &["no: no such file or directory; check the path"],
    );
}

/// The names of all fields of objects and of those in them.
fn fields(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields_of) => {
            for (name, inside) in fields_of {
                found.push(name.clone());
                // What these hold is not bench's to describe.
                if !["recipe", "device"].contains(&name.as_str()) {
                    fields(inside, found);
                }
            }
        }
        Value::Array(values) => values.iter().take(1).for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn every_field_is_described() {
    let place = Place::new();
    let report = measured(&place, 5, "a.json");
    quiet(&place, &report, "b.json", ("", 1.0));
    let ran = place.picie("bench --from b.json --against b.json --json").succeeds();
    let mut found = Vec::new();
    fields(&serde_json::from_str(&ran.out).unwrap(), &mut found);
    let model = place.picie("bench --model h200 --images 256 --json").succeeds();
    fields(&serde_json::from_str(&model.out).unwrap(), &mut found);
    assert!(found.len() > 60, "{found:?}");
    let text = std::fs::read_to_string(root().join("docs/bench.md")).unwrap();
    for name in found {
        assert!(text.contains(&format!("`{name}`")), "docs/bench.md does not describe {name}");
    }
}

#[test]
fn the_cpu_gets_sizes_that_it_can_do() {
    let place = Place::new();
    let ran = place.picie("bench --images 2 --size 32 --batch 2 --epochs 1 --warm-up 0").succeeds();
    holds(&ran.out, &["chosen for the CPU: --stored 64 for 640, --batch-cluster 32 for 256"]);
    holds(&ran.out, &["2 images stored at 64², input 32², batches of 2 and 32"]);
}

#[test]
fn an_op_that_is_slower_is_named_and_fails() {
    let place = Place::new();
    let report = measured(&place, 5, "a.json");
    let kinds = report["ops"].as_array().unwrap();
    let slow = kinds[3]["op"].as_str().unwrap();
    quiet(&place, &report, "old.json", ("", 1.0));
    quiet(&place, &report, "new.json", (slow, 1.3));
    let compared = |words: &str| place.picie(&format!("bench --from new.json --against {words}"));

    let ran = compared("old.json --json").succeeds();
    let against = &serde_json::from_str::<Value>(&ran.out).unwrap()["against"];
    for row in
        against["ops"].as_array().unwrap().iter().chain(against["phases"].as_array().unwrap())
    {
        let want = if row["what"] == slow { "SLOWER" } else { "SAME" };
        assert_eq!(row["verdict"], want, "{row}");
    }
    let text = compared("old.json --fail-above 31").succeeds().out;
    holds(&text, &["1 SLOWER", "SAME", "+30."]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let ran = compared("old.json --fail-above 20");
    holds(&ran.out, &["SLOWER"]);
    holds(&ran.fails(), &[slow, "% slower than in old.json"]);
    // What got faster is no failure.
    let ran = place.picie("bench --from old.json --against new.json --fail-above 0").succeeds();
    holds(&ran.out, &["1 FASTER, 0 SLOWER"]);
}

#[test]
fn two_runs_of_one_build_are_not_told_apart() {
    let place = Place::new();
    // NOTE: the tests beside this one are a noise that may begin between two runs.
    let alike = (0..4).any(|_| {
        measured(&place, 5, "a.json");
        measured(&place, 5, "b.json");
        let ran = place.picie("bench --from b.json --against a.json --json").succeeds();
        let against = serde_json::from_str::<Value>(&ran.out).unwrap();
        let verdicts = against["against"]["phases"].as_array().unwrap();
        assert_eq!(verdicts.len(), 4);
        verdicts.iter().all(|row| ["SAME", "UNSURE"].contains(&row["verdict"].as_str().unwrap()))
    });
    assert!(alike, "four pairs of runs, and none alike");
}

/// What is kept in the repository can be shown by what is in it.
#[test]
fn kept_reports_can_be_read() {
    let place = Place::new();
    let kept = std::fs::read_dir(crate::util::root().join("benches/results")).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path());
    // Those of the kit have another form.
    let is_report = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "json")
            && std::fs::read_to_string(path).unwrap().contains("\"schema\"")
    };
    let kept: Vec<_> = kept.filter(is_report).collect();
    assert!(!kept.is_empty());
    for path in kept {
        place.picie(&format!("bench --from {} --report a.html", path.display())).succeeds();
    }
}

#[test]
fn what_is_no_measure_is_refused() {
    let place = Place::new();
    let report = measured(&place, 1, "a.json");
    std::fs::write(place.join("none.json"), "{\"phases\": []}").unwrap();
    std::fs::write(place.join("later.json"), "{\"schema\": 2}").unwrap();
    let mut other = report.clone();
    other["engine"] = "NVIDIA H200, bf16".into();
    other["recipe"]["batch"] = 64.into();
    std::fs::write(place.join("other.json"), other.to_string()).unwrap();
    for (words, parts) in [
        ("--against gone.json", &["gone.json"][..]),
        ("--against none.json", &["none.json: has no schema", "picie bench --json"]),
        ("--against later.json", &["has schema 2, and this picie reads 1"]),
        (
            "--against other.json",
            &["engine NVIDIA H200, bf16, now CPU", "recipe's batch 64, now 2", "--ignore-device"],
        ),
        ("--from none.json", &["none.json"]),
    ] {
        let from = if words.starts_with("--from") { "" } else { "--from a.json" };
        holds(&place.picie(&format!("bench {from} {words}")).fails(), parts);
    }
    let words = "bench --from a.json --against other.json --ignore-device --fail-above 1";
    holds(&place.picie(words).succeeds().out, &["ignored: engine NVIDIA H200, bf16", "UNSURE"]);
    for wrong in
        ["--fail-above 3", "--ignore-device", "--epochs 3 --noise 1", "--from a.json --images 3"]
    {
        assert_eq!(place.picie(&format!("bench {wrong}")).code, Some(2), "{wrong}");
    }
}
