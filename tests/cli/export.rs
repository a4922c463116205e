//! What `picie export` writes, run by the programs that it is for. Where there is no Python with
//! onnxruntime (or PyTorch) in PICIE_PYTHON, these runs are skipped; `.ci/tools` has onnxruntime.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::{GrayImage, RgbImage};
use serde_json::Value;

use super::{Place, TINY, files, holds, scenes, trained};
use crate::util::root;

/// Sides of a photo that the network's input has, too, so that nothing is resized before it.
const WIDTH: u32 = 96;
const HEIGHT: u32 = 64;

/// A Python that has this package, if any was named.
fn python(package: &str) -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("PICIE_PYTHON")?);
    let has = Command::new(&python).arg("-c").arg(format!("import {package}")).output().ok()?;
    if !has.status.success() {
        eprintln!("PICIE_PYTHON has no {package}: what needs it is skipped");
    }
    has.status.success().then_some(python)
}

/// Part of a drawn scene as a photo, and its labels by `picie segment`.
fn segmented(place: &Place, checkpoint: &Path) -> (RgbImage, GrayImage) {
    let photo = image::open(root().join("tests/golden/scene.png")).unwrap().into_rgb8();
    let photo = image::imageops::crop_imm(&photo, 5, 9, WIDTH, HEIGHT).to_image();
    photo.save(place.join("photo.png")).unwrap();
    let words = format!("segment --refine=off --size {HEIGHT} --out out photo.png --checkpoint");
    place.picie_on(&words, [checkpoint]).succeeds();
    // A palette PNG, whose indices are the labels.
    let labels = picie::data::decode::label(&place.join("out/photo-labels.png")).unwrap().ids;
    (photo, GrayImage::from_raw(WIDTH, HEIGHT, labels).unwrap())
}

/// Fails unless 99.9 % of the pixels have the same label, and there are several labels.
#[track_caller]
fn agree(got: &[u8], want: &GrayImage) {
    assert_eq!(got.len(), want.len());
    let same = got.iter().zip(want.iter()).filter(|(got, want)| got == want).count();
    assert!(same as f64 >= 0.999 * got.len() as f64, "{same} of {} pixels", got.len());
    assert!(want.iter().any(|&label| label != want[(0, 0)].0[0]), "one label for all");
}

/// Checkpoints of one epoch that differ in all that an exported network may: the merge of the
/// pyramid, its levels, Sobel gradients, unit features and the metric of scores, a learned
/// classifier, bottlenecks.
fn checkpoints(place: &Place) -> Vec<PathBuf> {
    let mut all = vec![trained().join("checkpoint.safetensors")];
    let more = [
        "--recipe picie-released",
        "--recipe picie --backbone resnet50 --weights none --set score_metric=cosine",
        "--recipe mdc",
        "--recipe iic-res12",
        "--recipe supervised",
    ];
    for (i, words) in more.iter().enumerate() {
        let tiny = TINY.replace("--epochs 2", "--epochs 1").replace("--clusters 9", "");
        let words = format!("train --data {} --limit 4 {tiny} {words}", scenes().display());
        place.picie(&format!("{words} --run run{i}")).succeeds();
        all.push(place.join(format!("run{i}/checkpoint.safetensors")));
    }
    all
}

#[test]
fn onnxruntime_gives_the_labels_of_segment() {
    let Some(python) = python("onnxruntime") else { return };
    let place = Place::new();
    for checkpoint in checkpoints(&place) {
        let (photo, want) = segmented(&place, &checkpoint);
        std::fs::write(place.join("pixels"), photo.as_raw()).unwrap();
        place.picie_on("export --onnx net.onnx --checkpoint", [&checkpoint]).succeeds();
        let mut command = place.command(&python, "");
        command.arg(root().join("tests/cli/onnx.py")).args(["net.onnx", "pixels"]);
        command.args([HEIGHT, WIDTH].map(|side| side.to_string())).arg("labels");
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        agree(&std::fs::read(place.join("labels")).unwrap(), &want);
        let said: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let names: Value = serde_json::from_str(said["names"].as_str().unwrap()).unwrap();
        assert_eq!(names.as_object().unwrap().len() as u64, said["clusters"].as_u64().unwrap());
    }
}

#[test]
fn the_script_gives_the_labels_of_segment() {
    let Some(python) = python("torch, torchvision, safetensors, PIL") else { return };
    let place = Place::new();
    for checkpoint in checkpoints(&place) {
        let (_, want) = segmented(&place, &checkpoint);
        place.picie_on("export --torch net.py --checkpoint", [&checkpoint]).succeeds();
        let mut command = place.command(&python, "net.py");
        command.arg(&checkpoint).args(["photo.png", "labels.png", &HEIGHT.to_string()]);
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        agree(&image::open(place.join("labels.png")).unwrap().into_luma8(), &want);
    }
}

#[test]
fn a_folder_for_hubs_is_a_checkpoint_without_what_resuming_needs() {
    let place = Place::new();
    let checkpoint = trained().join("checkpoint.safetensors");
    let ran = place.picie_on("export --folder net --json --checkpoint", [&checkpoint]).succeeds();
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["written"].as_array().unwrap().len(), 4);
    assert_eq!(files(&place.join("net")).len(), 4);
    place.picie_on("export --folder net --checkpoint", [&checkpoint]).succeeds();
    let (_, want) = segmented(&place, &checkpoint);
    let (_, got) = segmented(&place, &place.join("net/model.safetensors"));
    assert_eq!(got, want);
    let size = |path: &Path| path.metadata().unwrap().len();
    assert!(size(&place.join("net/model.safetensors")) * 5 < size(&checkpoint) * 2);
    let config = std::fs::read(place.join("net/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["num_labels"], 9);
    for id in 0..9 {
        assert!(!config["id2label"][id.to_string()].as_str().unwrap().is_empty());
    }
    let card = std::fs::read_to_string(place.join("net/README.md")).unwrap();
    holds(&card, &["9 clusters", "| 8 | ", "picie segment --checkpoint model.safetensors"]);
}

#[test]
fn what_cannot_be_exported_is_one_line_and_nothing_is_written() {
    let place = Place::new();
    let checkpoint = trained().join("epoch-02.safetensors");
    std::fs::copy(&checkpoint, place.join("model.safetensors")).unwrap();
    let why = |words: &str| place.picie(&format!("export {words}")).fails();
    holds(
        &why("--checkpoint model.safetensors --onnx net.bin"),
        &["--onnx net.bin: an ONNX model is written; call it net.onnx"],
    );
    holds(&why("--checkpoint model.safetensors --torch net.txt"), &["call it net.py"]);
    holds(
        &why("--checkpoint model.safetensors --folder ."),
        &["would be written over", "model.safetensors; give other names"],
    );
    // A folder with a card of somebody's; what picie wrote itself is written again.
    std::fs::create_dir(place.join("mine")).unwrap();
    std::fs::write(place.join("mine/README.md"), "mine").unwrap();
    holds(
        &why("--checkpoint model.safetensors --folder mine"),
        &["mine/README.md: there is a file of this name that picie did not write; name another"],
    );
    assert_eq!(std::fs::read(place.join("mine/README.md")).unwrap(), b"mine");
    std::fs::remove_dir_all(place.join("mine")).unwrap();
    let weights = root().join("tests/golden/weights/resnet34.pth");
    let why = place.picie_on("export --onnx net.onnx --checkpoint", [weights]).fails();
    holds(&why, &["these are ImageNet weights"]);
    let ran = place.picie("export --checkpoint model.safetensors");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(files(&place.path()), [PathBuf::from("model.safetensors")]);
}
