//! Whole commands with `--device cuda`, against the CPU engine's.

use std::path::Path;

use serde_json::Value;

use super::{Place, TINY, holds, scenes, trained};

fn train(run: &str, more: &str) -> String {
    let more =
        if more.contains("--autotune") { more.into() } else { format!("{more} --autotune off") };
    format!(
        "train --recipe demo --data {} --run {run} {TINY} --device cuda {more}",
        scenes().display()
    )
}

/// The same command with engines of cuDNN that repeat themselves. Bytes are compared of such runs
/// alone.
fn reproducible(run: &str, more: &str) -> String {
    train(run, &format!("--deterministic {more}"))
}

fn rows(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn same_checkpoints(a: &Path, b: &Path) {
    for name in ["checkpoint.safetensors", "epoch-01.safetensors", "epoch-02.safetensors"] {
        let read = |run: &Path| std::fs::read(run.join(name)).unwrap();
        assert!(read(a) == read(b), "{name} has other bytes");
    }
}

#[test]
fn a_run_has_the_losses_of_the_cpu_engine_in_every_precision() {
    let place = Place::new();
    // NOTE: six images have six pixels of the last stage, so most of its principal components are
    // any, on either engine.
    let train = |run: &str, more: &str| train(run, &format!("{more} --laterals random"));
    place.picie(&train("cpu", "").replace("--device cuda", "--device cpu")).succeeds();
    let want = rows(&place.join("cpu"));
    // Of the first epoch, before roundings have moved many labels: the loss is a mean over 3 steps
    // and 384 pixels.
    for (precision, tol) in [("f32", 0.005), ("bf16", 0.02), ("f16", 0.02)] {
        let Some(ran) = place.gpu("", &train(precision, &format!("--precision {precision}")))
        else {
            return;
        };
        holds(&ran.succeeds().out, &["epoch", &format!("run: {precision}")]);
        let got = rows(&place.join(precision));
        assert_eq!(got.len(), 2);
        let off = |of: fn(&Value) -> f64| (of(&got[0]) / of(&want[0]) - 1.0).abs();
        let loss = off(|row| row["loss"].as_f64().unwrap());
        let objective = off(|row| row["kmeans_objective"][0].as_f64().unwrap());
        assert!(
            loss <= tol && objective <= tol,
            "{precision}: loss off by {loss}, k-means by {objective}"
        );
        assert!(got[1]["miou"].is_number());
    }
}

#[test]
fn a_failed_step_names_its_kernel_and_the_run_resumes_to_the_same_bytes() {
    let place = Place::new();
    let Some(ran) = place.gpu("", &reproducible("whole", "--autotune exhaustive")) else { return };
    ran.succeeds();
    // Which engines were the fastest is in the cache: the runs below have the same. Three steps an
    // epoch, each an update: the fourth is in epoch 2. Recorded steps replay it, so it is launched
    // op by op, and waited for.
    let failing = place
        .gpu(
            "SOFTGPU_FAIL=adam_step_bf16:4 CUDA_LAUNCH_BLOCKING=1",
            &reproducible("broken", "--no-graph --autotune load"),
        )
        .unwrap();
    if !crate::util::softgpu::has_gpu() {
        holds(
            &failing.fails(),
            &["adam_step", "CUDA_ERROR_ILLEGAL_ADDRESS", "the last checkpoint is whole"],
        );
    }
    place
        .gpu("", "train --run broken --resume --device cuda --autotune load --deterministic")
        .unwrap()
        .succeeds();
    same_checkpoints(&place.join("broken"), &place.join("whole"));
}

#[test]
fn a_trained_network_evaluates_and_segments_as_on_the_cpu() {
    let place = Place::new();
    let checkpoint = trained().join("checkpoint.safetensors");
    let eval =
        format!("eval --checkpoint {} --data {} --json", checkpoint.display(), scenes().display());
    let Some(ran) = place.gpu("", &format!("{eval} --device cuda --precision f32")) else { return };
    let report = |text: &str| serde_json::from_str::<Value>(text.trim()).unwrap();
    let (got, want) = (report(&ran.succeeds().out), report(&place.picie(&eval).succeeds().out));
    let acc = |r: &Value| r["acc"].as_f64().unwrap_or_else(|| panic!("{r}"));
    // A few of 3072 pixels lie so near a boundary that f32 sums in another order move them.
    assert!((acc(&got) - acc(&want)).abs() <= 0.5, "{} and {}", acc(&got), acc(&want));

    let photos = scenes().join("images/val2017");
    let look =
        format!("eval --checkpoint {} --data {} --json", checkpoint.display(), photos.display());
    let ran = place.gpu("", &format!("{look} --device cuda --precision f32")).unwrap();
    let (got, want) = (report(&ran.succeeds().out), report(&place.picie(&look).succeeds().out));
    for share in ["mirror", "crop", "size", "borders", "largest"] {
        let [got, want] =
            [&got, &want].map(|r| r["unlabelled"][share].as_f64().unwrap_or_else(|| panic!("{r}")));
        assert!((got - want).abs() <= 0.5, "{share}: {got} and {want}");
    }

    let name = super::files(scenes())
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "jpg"))
        .unwrap();
    let photo = scenes().join(name);
    let segment = |out: &str| {
        format!("segment --checkpoint {} --out {out} {}", checkpoint.display(), photo.display())
    };
    place.gpu("", &format!("{} --device cuda --precision f32", segment("gpu"))).unwrap().succeeds();
    place.picie(&segment("cpu")).succeeds();
    let labels = |dir: &str| {
        let name = format!("{}-labels.png", photo.file_stem().unwrap().to_string_lossy());
        image::open(place.join(dir).join(name)).unwrap().into_luma8().into_raw()
    };
    let (got, want) = (labels("gpu"), labels("cpu"));
    let differ = got.iter().zip(&want).filter(|(a, b)| a != b).count();
    assert!(
        got.len() == want.len() && differ * 200 <= got.len(),
        "{differ} of {} pixels differ",
        got.len()
    );
}

#[test]
fn a_plan_is_printed_and_nothing_is_begun() {
    let place = Place::new();
    let Some(ran) = place.gpu("", &train("run", "--plan")) else { return };
    // The images are resident, the weights have a copy of two bytes each.
    holds(
        &ran.succeeds().out,
        &["params", "acts", "staging", "dataset", "images", "scratch", "total", "MiB"],
    );
    assert!(!place.join("run").exists(), "--plan leaves a run folder");
}

#[test]
fn a_bench_reports_phases_ops_and_the_device() {
    let place = Place::new();
    let words = "bench --recipe demo --images 4 --size 32 --stored 32 --batch 2 --batch-cluster 4 --clusters 3 --epochs 2 --warm-up 1";
    let Some(ran) = place.gpu("", &format!("{words} --device cuda --json")) else { return };
    let report: Value = serde_json::from_str(ran.succeeds().out.trim()).unwrap();
    assert!(
        report["device"]["name"].is_string() && report["date"].as_str().unwrap().ends_with('Z'),
        "{report}"
    );
    let names: Vec<&str> =
        report["phases"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["k-means", "labels", "train", "epoch"]);
    let ops = report["ops"].as_array().unwrap();
    for op in [
        "view_render",
        "conv_forward 7×7/2 4 → 64",
        "conv_backward_weight",
        "norm_backward",
        "head_loss",
        "adam_step",
    ] {
        assert!(ops.iter().any(|row| row["op"].as_str().unwrap().starts_with(op)), "no {op}");
    }
    let share: f64 = ops.iter().map(|row| row["share_percent"].as_f64().unwrap()).sum();
    assert!(
        (share - 100.0).abs() <= 1e-6
            && ops.iter().all(|row| row["us"]["min"].as_f64().unwrap() > 0.0)
    );
    let real = format!("{words} --data {} --device cpu", scenes().display());
    holds(
        &place.gpu("", &real).unwrap().succeeds().out,
        &["CPU", "4 images stored", "images/s", "head_loss"],
    );
}

/// The images of a data set that does not fit come batch by batch, the next one while a step runs:
/// whenever the device does its work.
#[test]
fn images_that_do_not_fit_are_streamed_to_the_same_bytes() {
    let place = Place::new();
    // The images take more than the buffers of two batches do, and a pass has three: the third is
    // staged where the first was.
    let train = |run: &str, more: &str| {
        reproducible(run, more)
            .replace("--stored 64", "--stored 512")
            .replace("--batch-cluster 4", "--batch-cluster 2")
    };
    let Some(ran) = place.gpu("", &train("resident", "--plan")) else { return };
    if crate::util::softgpu::has_gpu() {
        return;
    }
    let plan = ran.succeeds().out;
    let total: f64 =
        plan.lines().last().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    // Less than that by more than the engine counts in, and more than batches need.
    let little = format!("SOFTGPU_MEMORY_MIB={}", ((1024.0 + total - 0.2) / 0.98).floor());
    let streamed = place.gpu(&little, &train("streamed", "--plan")).unwrap().succeeds().out;
    // Kept views are there in either, and the images in one.
    let dataset = |plan: &str| plan.split_once("\ndataset ").unwrap().1.to_string();
    assert!(
        dataset(&plan).contains("  images ") && !dataset(&streamed).contains("  images "),
        "{plan}\n{streamed}"
    );
    assert!(
        [&plan, &streamed].iter().all(|plan| dataset(plan).contains("  view 2 ")),
        "{streamed}"
    );
    place.gpu("SOFTGPU_ASYNC=early", &train("resident", "")).unwrap().succeeds();
    for when in ["late", "4", "5"] {
        let ran = place
            .gpu(&format!("{little} SOFTGPU_ASYNC={when}"), &train(when, ""))
            .unwrap()
            .succeeds();
        assert!(!ran.err.contains("softgpu: "), "{when}: {}", ran.err);
        same_checkpoints(&place.join(when), &place.join("resident"));
    }
}

#[test]
fn nothing_is_allocated_after_the_plan() {
    let place = Place::new();
    if crate::util::softgpu::has_gpu() {
        return;
    }
    // Seven pools; where engines are not measured nothing else is ever asked for.
    let run = |run: &str, allocation: usize| {
        place.gpu(&format!("SOFTGPU_FAIL_ALLOC={allocation}"), &train(run, ""))
    };
    let Some(ran) = run("fine", 8) else { return };
    ran.succeeds();
    holds(&run("short", 7).unwrap().fails(), &["out of memory"]);
}
