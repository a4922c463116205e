//! What a run starts from: said, recorded, and refused before images are read where it cannot be.

use picie::net::Architecture;
use picie::net::weights::{self, Source, Tensor, Weights};
use serde_json::Value;

use super::{Place, TINY, holds, scenes, trained};

const SHA256: &str = "7730c6ef5ad695eac9d70931d3161e5fe6bdfe06acf416646d0dbab8f56bf4a5";

fn settings(place: &Place) -> Value {
    serde_json::from_slice(&std::fs::read(place.join("run/run.json")).unwrap()).unwrap()
}

/// The weights in the binary as a file of torchvision's names, after a change.
fn imagenet(place: &Place, name: &str, change: impl Fn(&mut Weights)) {
    let mut all = Source::Imagenet.open(Architecture::RESNET18).unwrap().weights.unwrap();
    change(&mut all);
    weights::write(&place.join(name), &all).unwrap();
}

fn each(weights: &mut Weights, name: &str, change: impl Fn(f32) -> f32) {
    let tensor = weights.tensors.get_mut(name).unwrap();
    *tensor = Tensor::from_f32(
        tensor.shape.clone(),
        tensor.f32().unwrap().iter().map(|&v| change(v)).collect(),
    );
}

#[test]
fn a_run_and_its_checkpoint_say_what_they_started_from() {
    let settings: Value =
        serde_json::from_slice(&std::fs::read(trained().join("run.json")).unwrap()).unwrap();
    let checkpoint = weights::read(&trained().join("epoch-01.safetensors")).unwrap();
    let state: Value = serde_json::from_str(&checkpoint.metadata["picie"]).unwrap();
    for start in [&settings["start"], &state["start"]] {
        assert_eq!(
            (start["source"].as_str(), start["sha256"].as_str()),
            (Some("imagenet"), Some(SHA256))
        );
    }
    assert_eq!(
        (&settings["recipe"]["weights"], &settings["recipe"]["laterals"]),
        (&"imagenet".into(), &"pca".into())
    );
    // The demo's laterals are components of the last two stages; the first lateral only learns from
    // there.
    let norm = |level: usize| {
        let lateral = &checkpoint.tensors[&format!("fpn.lateral{level}.weight")];
        lateral.f32().unwrap().iter().map(|v| v * v).sum::<f32>().sqrt()
    };
    assert!(norm(2) < 0.1 * norm(4), "{} {}", norm(2), norm(4));
}

#[test]
fn random_weights_bring_the_numbers_that_the_paper_has_for_them() {
    let place = Place::new();
    let data = scenes().display();
    let tiny = TINY.replace("--epochs 2", "--epochs 1");
    let ran = place
        .picie(&format!("train --run sobel --data {data} {tiny} --recipe mdc --weights none"))
        .succeeds();
    holds(&ran.err, &["starts from random weights, laterals random"]);
    let run: Value =
        serde_json::from_slice(&std::fs::read(place.join("sobel/run.json")).unwrap()).unwrap();
    assert_eq!(run["recipe"]["architecture"]["sobel"], true);
    let tiny = tiny.replace(" --eval-size 32", "");
    place
        .picie(&format!("train --run run --data {data} {tiny} --recipe demo --weights none"))
        .succeeds();
    let run = settings(&place);
    assert_eq!(run["start"], serde_json::json!({"source": "none", "sha256": null}));
    assert_eq!(
        (&run["recipe"]["laterals"], &run["recipe"]["eval_size"]),
        (&"random".into(), &32.into())
    );
    assert_eq!(run["recipe"]["kmeans_start"], "fresh");
}

#[test]
fn a_run_says_how_much_of_its_weights_it_takes() {
    let place = Place::new();
    imagenet(&place, "more.safetensors", |w| {
        w.tensors.insert("fc.weight".into(), Tensor::from_f32(vec![1000, 512], vec![0.1; 512_000]));
        w.tensors.insert("fc.bias".into(), Tensor::from_f32(vec![1000], vec![0.1; 1000]));
    });
    let plan = |weights: &str| {
        let data = scenes().display();
        place
            .picie(&format!("train --plan --data {data} {TINY} --weights {weights}"))
            .succeeds()
            .err
    };
    holds(&plan("imagenet"), &["in this binary (sha256 7730c6ef), all 100 tensors, laterals "]);
    holds(
        &plan("more.safetensors"),
        &["more.safetensors (sha256 ", ", 100 tensors read, 2 left out, "],
    );
}

#[test]
fn weights_that_cannot_be_started_from_are_named_before_images_are_read() {
    let place = Place::new();
    imagenet(&place, "nan.safetensors", |w| each(w, "layer2.0.conv1.weight", |_| f32::NAN));
    imagenet(&place, "negative.safetensors", |w| each(w, "layer3.1.bn2.running_var", |v| -v));
    imagenet(&place, "part.safetensors", |w| {
        w.tensors.retain(|name, _| !name.starts_with("layer4."))
    });
    for (words, parts) in [
        (
            "--weights nan.safetensors",
            &["nan.safetensors: layer2.0.conv1.weight holds NaN", "earlier checkpoint"][..],
        ),
        (
            "--weights negative.safetensors",
            &["layer3.1.bn2.running_var holds the negative variance -0.2"],
        ),
        (
            "--weights part.safetensors",
            &["tensors are missing: layer4.0", "weights of a ResNet-18"],
        ),
        (
            "--weights imagenet --sobel",
            &["--weights imagenet: ", "leave out --sobel, or start from random numbers"],
        ),
        (
            "--weights torchvision",
            &["torchvision's ResNet-18 is not here; get it with: python3 -c"],
        ),
        ("--eval-size 100", &["--eval-size 100; use a multiple of 32"]),
    ] {
        // There is no such folder: nothing was read of it yet, or it would be what fails.
        let tiny = TINY.replace(" --eval-size 32", "");
        let ran =
            place.picie(&format!("train --run run --data {} {tiny} {words}", scenes().display()));
        assert!(!ran.err.contains("read images"), "{ran:#?}");
        holds(&ran.fails(), parts);
        assert!(!place.join("run").exists());
    }
}

#[test]
fn weights_that_expect_other_pixels_are_accepted_with_a_warning() {
    let place = Place::new();
    // As Caffe's: deviations of 58 grey levels, where torchvision's are 1.
    imagenet(&place, "caffe.safetensors", |w| each(w, "conv1.weight", |v| v / 58.0));
    let words = format!(
        "train --run run --data {} {TINY} --weights caffe.safetensors --plan",
        scenes().display()
    );
    let ran = place.picie(&words).succeeds();
    holds(
        &ran.err,
        &[
            "warning: ",
            "caffe.safetensors: bn1 expects pixels about",
            "BGR",
            "use --weights imagenet",
        ],
    );
}

#[test]
fn a_run_without_its_first_checkpoint_wants_the_same_weights_again() {
    let place = Place::new();
    imagenet(&place, "mine.safetensors", |_| ());
    let tiny = TINY.replace("--epochs 2", "--epochs 1");
    place
        .picie(&format!(
            "train --run run --data {} {tiny} --weights mine.safetensors",
            scenes().display()
        ))
        .succeeds();
    std::fs::remove_file(place.join("run/checkpoint.safetensors")).unwrap();
    let first = std::fs::read(place.join("run/epoch-01.safetensors")).unwrap();
    place.picie("train --run run --resume").succeeds();
    assert!(std::fs::read(place.join("run/epoch-01.safetensors")).unwrap() == first);
    std::fs::remove_file(place.join("run/checkpoint.safetensors")).unwrap();
    imagenet(&place, "mine.safetensors", |w| each(w, "bn1.bias", |v| v + 1.0));
    let why = place.picie("train --run run --resume").fails();
    holds(
        &why,
        &["run.json: the run was started from other weights than", "mine.safetensors holds now"],
    );
}
