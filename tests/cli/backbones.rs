//! Other backbones than the recipes': what they start from, and that they train.

use serde_json::Value;

use super::{Place, TINY, holds, scenes};
use crate::util::root;

/// torchvision's names and shapes, every element 1.
fn weights(backbone: &str) -> String {
    root().join(format!("tests/golden/weights/{backbone}.pth")).display().to_string()
}

#[test]
fn a_backbone_starts_from_its_own_weights() {
    let (place, data) = (Place::new(), scenes().display());
    let train = |words: String| {
        place.picie(&format!("train --run run --data {data} {TINY} --plan --backbone {words}"))
    };
    let why = train("resnet50".into()).fails();
    holds(
        &why,
        &[
            "--backbone resnet50: the ImageNet weights in this binary are a ResNet-18's",
            "give a ResNet-50's with --weights FILE",
            "--weights none",
        ],
    );
    let why = train(format!("resnet50 --weights {}", weights("resnet34"))).fails();
    holds(
        &why,
        &[
            "resnet34.pth: these are weights of a ResNet-34, and the network is a ResNet-50",
            "use --backbone resnet34",
        ],
    );
    for backbone in ["resnet34", "resnet50"] {
        let plan = train(format!("{backbone} --weights {}", weights(backbone))).succeeds().out;
        holds(&plan, &["layer1.2.bn2.running_mean", "layer3.5.bn2.running_var"]);
        assert_eq!(plan.contains("layer1.0.bn3.running_mean"), backbone == "resnet50");
    }
}

#[test]
fn a_resnet_50_is_trained_and_evaluated() {
    let (place, data) = (Place::new(), scenes().display());
    let tiny = TINY.replace("--epochs 2", "--epochs 1");
    let words = "--recipe picie --backbone resnet50 --weights none";
    place.picie(&format!("train --run run --data {data} {tiny} {words} --limit 4")).succeeds();
    let run: Value =
        serde_json::from_slice(&std::fs::read(place.join("run/run.json")).unwrap()).unwrap();
    assert_eq!(run["recipe"]["architecture"]["backbone"], "resnet50");
    place
        .picie(&format!("eval --data {data} --checkpoint run/checkpoint.safetensors --limit 2"))
        .succeeds();
    let why = place.picie("train --run run --resume --backbone resnet34").fails();
    holds(&why, &["run.json: the run was started with other settings than these flags"]);
}
