//! The choice of cuDNN's engines and ways, and its cache.

use picie::device::cuda::{Autotune, Cuda};
use picie::device::ops::{ConvSpec, plan_conv};
use picie::device::{Dtype, Engine};

use super::conv::{SHAPES, engine, refuse, spec, uses};

/// The engines of the three directions that a plan takes.
fn chosen(mut dev: Cuda) -> Vec<String> {
    plan_conv(&mut dev, spec(SHAPES[1]), uses(0b11111)).unwrap();
    dev.decide().unwrap();
    dev.chosen_engines().iter().map(|choice| choice.engine.clone()).collect()
}

#[test]
fn the_first_engine_that_can_be_built_is_taken_without_autotuning() {
    if !refuse("", 0) {
        return;
    }
    let off =
        |deterministic| chosen(engine(Dtype::Bf16, Autotune::Off, deterministic, None).unwrap());
    assert_eq!(off(false), ["1:2=4"; 3]);
    // Gradients of engine 1 are marked.
    assert_eq!(off(true), ["1:2=4", "0:2=4", "0:2=4"]);
    // Engine 2 would round f32.
    assert_eq!(chosen(engine(Dtype::F32, Autotune::Off, false, None).unwrap()), ["1:2=4"; 3]);
}

#[test]
fn one_problem_has_one_plan() {
    let Some(mut dev) = engine(Dtype::F16, Autotune::Load, false, None) else { return };
    let (s, all) = (spec(SHAPES[1]), uses(0b11111));
    plan_conv(&mut dev, s, all).unwrap();
    assert!(dev.chosen_engines().is_empty(), "a plan only asks");
    dev.decide().unwrap();
    let chosen = dev.chosen_engines().len();
    assert_eq!(chosen, 3);
    plan_conv(&mut dev, s, all).unwrap();
    dev.decide().unwrap();
    assert_eq!(dev.chosen_engines().len(), chosen);
    // Another epilogue is another problem; its gradients are the same.
    plan_conv(&mut dev, s, uses(0b11000)).unwrap();
    dev.decide().unwrap();
    assert_eq!(dev.chosen_engines().len(), chosen + 1);
    assert!(dev.chosen_engines().iter().all(|c| c.microseconds.is_some_and(|us| us > 0.0)));
}

#[test]
fn measured_engines_are_kept_and_found_again() {
    if !refuse("", 0) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new folder/engines.json");
    let tuned = |autotune, deterministic| {
        let mut dev = engine(Dtype::Bf16, autotune, deterministic, Some(&path)).unwrap();
        plan_conv(&mut dev, spec(SHAPES[1]), uses(0b11111)).unwrap();
        dev.decide().unwrap();
        dev.chosen_engines()
    };
    let entries = || -> std::collections::BTreeMap<String, serde_json::Value> {
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
    };
    let first = tuned(Autotune::Load, false);
    let mut kept = entries();
    // Of the forward pass and the gradient of x that is added, other ways were measured, too.
    assert_eq!(kept.len(), 5);
    assert!(
        kept.keys()
            .all(|k| k.starts_with("cuDNN 91000, ") && k.contains("3×7×6×8") && k.contains("bf16"))
    );
    assert!(first.iter().all(|c| kept.values().any(|e| e["tag"] == c.engine.as_str())));

    // What the file says is taken, even if it is slow.
    for entry in kept.values_mut() {
        entry["tag"] = "0:2=5".into();
        entry["microseconds"] = 12345.0.into();
        entry.as_object_mut().unwrap().remove("plan");
    }
    std::fs::write(&path, serde_json::to_vec(&kept).unwrap()).unwrap();
    let loaded = tuned(Autotune::Load, false);
    assert!(loaded.iter().all(|c| c.engine == "0:2=5" && c.microseconds == Some(12345.0)));
    // Deterministic engines are another matter; so is what is not asked of the file.
    assert!(tuned(Autotune::Load, true).iter().all(|c| c.microseconds != Some(12345.0)));
    assert_eq!(entries().len(), 10);
    assert!(tuned(Autotune::Exhaustive, false).iter().all(|c| c.microseconds != Some(12345.0)));

    // An engine that is not offered any more is measured anew, and so is everything where the file
    // is damaged.
    for damaged in [serde_json::to_string(&kept).unwrap().replace("0:2=5", "99"), "{\"cuDNN".into()]
    {
        std::fs::write(&path, damaged).unwrap();
        assert!(tuned(Autotune::Load, false).iter().all(|c| c.microseconds != Some(12345.0)));
        assert_eq!(entries().len(), 5);
    }
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "unfinished files are left"
    );
}

#[test]
fn a_cache_that_cannot_be_written_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut dev) = engine(Dtype::F32, Autotune::Load, false, Some(folder.path())) else {
        return;
    };
    plan_conv(&mut dev, spec(SHAPES[1]), uses(0)).unwrap();
    dev.decide().unwrap();
}

/// Asks for the forward pass of `images` images, and two gradients.
fn planned(dev: &mut Cuda, images: usize) {
    plan_conv(dev, ConvSpec { n: images, ..spec(SHAPES[1]) }, uses(0b01001)).unwrap();
}

#[test]
fn a_tail_has_the_engine_of_the_full_batch() {
    let Some(mut dev) = engine(Dtype::Bf16, Autotune::Load, false, None) else { return };
    planned(&mut dev, 3);
    planned(&mut dev, 8);
    planned(&mut dev, 1);
    dev.decide().unwrap();
    let of = |images: usize| {
        let mut all = dev.chosen_engines();
        all.retain(|choice| choice.shape.starts_with(&format!("{images}×")));
        all
    };
    let full = of(8);
    assert!(
        full.len() == 3
            && full.iter().all(|choice| choice.microseconds.is_some() && choice.like.is_none())
    );
    for tail in [of(1), of(3)] {
        assert_eq!(tail.len(), 3);
        for (tail, full) in tail.iter().zip(&full) {
            assert_eq!((&tail.engine, &tail.way), (&full.engine, &full.way));
            assert_eq!((tail.microseconds, tail.like), (None, Some(8)));
        }
    }
}

#[test]
fn an_engine_that_cannot_be_recorded_is_passed_over() {
    if !refuse("capture=1", 0) {
        return;
    }
    let mut dev = engine(Dtype::Bf16, Autotune::Load, false, None).unwrap();
    planned(&mut dev, 2);
    dev.decide().unwrap();
    assert!(
        dev.chosen_engines().iter().all(|choice| choice.engine == "0:2=4"),
        "{:?}",
        dev.chosen_engines()
    );
    refuse("", 0);
}

#[test]
fn engines_with_one_cache_keep_what_each_of_them_chose() {
    if !refuse("", 0) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engines.json");
    // Both read the file before either writes it, as two processes may.
    let [mut a, mut b] =
        [(); 2].map(|()| engine(Dtype::Bf16, Autotune::Cached, false, Some(&path)).unwrap());
    planned(&mut a, 2);
    planned(&mut b, 3);
    a.decide().unwrap();
    b.decide().unwrap();
    let kept: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let of = |images: &str| kept.keys().filter(|key| key.contains(images)).count();
    assert_eq!((of(" 2×7×6×8"), of(" 3×7×6×8")), (3, 3), "{:?}", kept.keys());
}
