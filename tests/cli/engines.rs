//! The choice of cuDNN's engines as a user meets it: how much is built, what is said meanwhile,
//! what is kept. Of the software cuDNN alone, which counts, refuses and fails as it is told.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use super::{Place, Ran, TINY, holds, scenes, trained};
use crate::util::softgpu;

/// A plan of the training that the other tests run: nothing follows it.
fn plan(more: &str) -> String {
    format!(
        "train --recipe demo --data {} --run run {TINY} --device cuda --plan {more}",
        scenes().display()
    )
}

/// What is chosen, a line each.
fn choices(ran: &Ran) -> Vec<&str> {
    ran.out.lines().filter(|line| line.contains(", workspace ")).collect()
}

/// The cache's entries.
fn kept(place: &Place) -> BTreeMap<String, Value> {
    let path = place.cache().join("picie/cudnn-engines.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A run, and the software cuDNN's counts of it. None where it is not at hand.
fn counted(place: &Place, name: &str, words: &str) -> Option<(Ran, BTreeMap<String, usize>)> {
    let file = place.join(name);
    let ran = (!softgpu::has_gpu())
        .then(|| place.gpu(&format!("SOFTCUDNN_COUNTS={}", file.display()), words))??;
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
    Some((ran.succeeds(), pairs.map(|(name, n)| (name.into(), n.parse().unwrap())).collect()))
}

#[test]
fn a_cold_start_builds_few_plans_and_a_warm_one_none() {
    let place = Place::new();
    let Some((cold, counts)) = counted(&place, "cold", &plan("")) else { return };
    let entries = kept(&place);
    let is_tail = |entry: &&Value| entry["like"].is_number();
    let tails = entries.values().filter(is_tail).count();
    let problems = entries.len() - tails;
    assert!(tails >= 20 && problems >= 40, "{tails} tails, {problems} other problems");
    // Tails take the engine of the full batch, and are not measured. All else is.
    for (key, entry) in &entries {
        assert_eq!(is_tail(&entry), entry["microseconds"].is_null(), "{key}: {entry}");
        assert!(
            entry["plan"]["text"].is_string() && entry["driver"] == 13000 && entry["date"] != "",
            "{key}: {entry}"
        );
    }
    let built = counts["plans"] - tails;
    assert!(2 * built <= 5 * problems, "{built} plans for {problems} problems");
    holds(&cold.err, &["choose engines"]);

    let (warm, counts) = counted(&place, "warm", &plan("")).unwrap();
    assert_eq!((choices(&cold), counts["plans"]), (choices(&warm), 0), "{counts:?}");
    // Some convolutions are the same but for a pass of our own.
    let distinct = counts["plans_json"];
    assert!(
        distinct <= choices(&warm).len()
            && 2 * distinct > choices(&warm).len()
            && counts["executes"] == 0
    );
    assert!(!warm.err.contains("choose engines"), "{}", warm.err);

    // A plan whose text is damaged is built again.
    let path = place.cache().join("picie/cudnn-engines.json");
    let damaged = std::fs::read_to_string(&path).unwrap().replace("cudnnVersion", "cudnnVersiom");
    std::fs::write(&path, damaged).unwrap();
    let (again, counts) = counted(&place, "damaged", &plan("")).unwrap();
    assert_eq!((choices(&cold), counts["plans"]), (choices(&again), distinct));
    assert_eq!((counts["plans_json"], counts["executes"]), (0, 0));
}

/// What a trained network is used for begins at once: nothing is measured unless that is asked for.
#[test]
fn eval_and_segment_measure_nothing() {
    let place = Place::new();
    let checkpoint = trained().join("checkpoint.safetensors").display().to_string();
    let photo = super::files(scenes())
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "jpg"))
        .unwrap();
    let photo = scenes().join(photo).display().to_string();
    let eval =
        format!("eval --checkpoint {checkpoint} --data {} --device cuda", scenes().display());
    let segment = format!("segment --checkpoint {checkpoint} --out out {photo} --device cuda");
    for (i, words) in [&eval, &segment].into_iter().enumerate() {
        let Some((_, cold)) = counted(&place, &format!("cold{i}"), words) else { return };
        let (_, warm) = counted(&place, &format!("warm{i}"), words).unwrap();
        assert!(
            kept(&place).values().all(|entry| entry["microseconds"].is_null()),
            "{:?}",
            kept(&place)
        );
        assert!(cold["plans"] > 0 && cold["plans_json"] == 0, "{words}: {cold:?}");
        assert_eq!((warm["plans"], warm["plans_json"]), (0, cold["plans"]), "{words}");
    }
    let (_, asked) = counted(&place, "asked", &format!("{eval} --autotune load")).unwrap();
    assert!(
        asked["plans"] > 0 && kept(&place).values().any(|entry| entry["microseconds"].is_number())
    );
}

#[test]
fn a_line_appears_within_a_second_of_the_start() {
    let place = Place::new();
    if softgpu::has_gpu() {
        return;
    }
    let Some(mut run) = place.start_gpu("SOFTCUDNN_BUILD_MS=60", &plan("")) else { return };
    run.wait_for("choose engines");
    let seen = Instant::now();
    // Lines of how far it is come before the last one.
    let line = loop {
        let line = run.wait_for("choose engines").to_string();
        if line.contains(" in ") {
            break line;
        }
    };
    let seconds: f64 =
        line.split(" in ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let after = seen.elapsed().as_secs_f64();
    assert!(
        seconds > 2.0 && after >= seconds - 1.0,
        "{line}: the first line came {after:.1} s before"
    );
    assert_eq!(run.finish().code, Some(0));
}

/// The true reason reaches the user, with the stage and what to do.
#[test]
fn what_cudnn_says_is_told() {
    let place = Place::new();
    if softgpu::has_gpu() {
        return;
    }
    for (refused, parts) in [
        (
            "sublibrary",
            ["NOT_INITIALIZED (1008)", "ptrDesc->finalize()", "pip install nvidia-cudnn-cu13"],
        ),
        ("heuristics", ["heuristics A: ", "heuristics_query()", "CUDNN_LOGLEVEL_DBG=2"]),
        ("build", ["building 1:2=4: ", "plan.finalize_internal()", "CUDNN_LOGLEVEL_DBG=2"]),
        ("oom", ["INTERNAL_ERROR (4004)", "cudaMalloc", "lower --batch"]),
        ("all", ["no engine for it", "all is refused", "another --precision"]),
    ] {
        let Some(ran) = place.gpu(&format!("SOFTCUDNN_REFUSE={refused}"), &plan("--autotune off"))
        else {
            return;
        };
        let why = ran.fails();
        holds(&why, &parts);
        assert!(refused == "all" || !why.contains("no engine"), "{why}");
    }
}

/// An engine that fails on the GPU is named, and the next start does without it.
#[test]
fn a_failing_engine_is_named_and_avoided() {
    let place = Place::new();
    if softgpu::has_gpu() {
        return;
    }
    let Some(ran) = place.gpu("SOFTCUDNN_REFUSE=execute=1:2=4", &plan("")) else { return };
    holds(
        &ran.fails(),
        &[
            "engine 1:2=4 for the forward of 4×8×8×64",
            "failed while it was measured",
            "cuLaunchKernelEx",
        ],
    );
    let bad = |entry: &&Value| entry["bad"][0] == "1:2=4";
    assert_eq!(kept(&place).values().filter(bad).count(), 1);
    place.gpu("", &plan("")).unwrap().succeeds();
    let entries = kept(&place);
    let avoided: Vec<&Value> = entries.values().filter(bad).collect();
    assert_eq!((avoided.len(), &avoided[0]["tag"]), (1, &Value::from("0:2=4")));
    assert!(entries.values().any(|entry| entry["tag"] == "1:2=4"));
}

/// Memory that is too little to measure is no reason to stop.
#[test]
fn an_engine_that_cannot_be_measured_is_taken_unmeasured() {
    let place = Place::new();
    if softgpu::has_gpu() {
        return;
    }
    let Some(ran) = place.gpu("SOFTGPU_FAIL_ALLOC=1", &plan("")) else { return };
    let ran = ran.succeeds();
    let (unmeasured, measured): (Vec<&str>, Vec<&str>) =
        choices(&ran).into_iter().partition(|line| line.contains("not measured"));
    // The first problem, and those that do as it does.
    assert!(unmeasured.iter().all(|line| line.contains("8×8×64 ∗ 64×3×3")), "{unmeasured:?}");
    assert!(!unmeasured.is_empty() && measured.len() > 20, "{unmeasured:?}");
}

/// By the software cuDNN's clock its list is wrong of gradients of data, and of the forward pass
/// the second is faster by 2 %.
#[test]
fn the_heuristics_are_overruled_by_what_is_clearly_faster() {
    let place = Place::new();
    if softgpu::has_gpu() {
        return;
    }
    let Some(ran) = place.gpu("SOFTGPU_CLOCK=simulated", &plan("")) else { return };
    let ran = ran.succeeds();
    for line in choices(&ran) {
        let engine =
            if line.starts_with("data gradient") { "engine 0:2=4, " } else { "engine 1:2=4" };
        holds(line, &[engine]);
        // What a pass costs on top is more than β = 1 does.
        assert!(!line.contains("data gradient and a pass, "), "{line}");
    }
}

#[test]
fn a_plan_says_which_way_each_convolution_takes_and_why() {
    let place = Place::new();
    if softgpu::has_gpu() {
        return;
    }
    let Some(ran) = place.gpu("SOFTCUDNN_REFUSE=fused", &plan("")) else { return };
    let ran = ran.succeeds();
    let bias: Vec<&str> =
        choices(&ran).into_iter().filter(|line| line.starts_with("forward + bias")).collect();
    assert!(bias.len() > 20);
    assert!(bias.iter().all(|line| line.contains(": forward and a pass, engine ")), "{bias:?}");
    // Tails do as the full batch does.
    let why = ["; not forward + bias", "heuristics A: ", "fused graphs are refused"];
    assert!(
        bias.iter().filter(|line| why.iter().all(|part| line.contains(part))).count() > 10,
        "{bias:?}"
    );
    // A cuDNN that adds to wide gradients does so by an engine that is slow.
    let ran = place.gpu("SOFTCUDNN_ACCEPT=widebeta", &plan("--autotune off")).unwrap().succeeds();
    let gradients: Vec<&str> =
        choices(&ran).into_iter().filter(|line| line.starts_with("weight gradient")).collect();
    assert!(gradients.len() >= 10);
    assert!(
        gradients.iter().all(|line| line.contains(": weight gradient and a pass, engine ")),
        "{gradients:?}"
    );
}
