//! Checkpoints that cannot be used: refused by `eval`, `segment` and `train --weights` alike,
//! before anything is written.

use std::path::Path;

use picie::net::weights::{self, Tensor};

use super::{Place, TINY, holds, scenes, trained};

/// What each command that reads weights says about `file`.
#[track_caller]
fn refused(place: &Place, file: &str, parts: &[&str]) {
    let before = std::fs::read_dir(place.path()).unwrap().count();
    let data = scenes().display();
    for words in [
        format!("eval --data {data} --checkpoint {file}"),
        format!("segment --checkpoint {file} --out out {data}/images/val2017/000000000001.jpg"),
        format!("train --run run --data {data} --weights {file} {TINY}"),
    ] {
        holds(&place.picie(&words).fails(), parts);
        assert_eq!(
            std::fs::read_dir(place.path()).unwrap().count(),
            before,
            "{words} leaves something"
        );
    }
}

#[test]
fn files_that_are_no_weights() {
    let place = Place::new();
    refused(&place, "gone.pth", &["gone.pth: no such file or directory; check the path"]);
    std::fs::create_dir(place.join("folder")).unwrap();
    refused(&place, "folder", &["folder: is a directory; name a file, not a folder"]);
    std::fs::write(place.join("empty.pth"), "").unwrap();
    refused(
        &place,
        "empty.pth",
        &["empty.pth: damaged weights file: it is empty; copy or download it again"],
    );
    let (page, save) = ("download the file itself, not the page", "in PyTorch, save the network's");
    let others: [(&[u8], &str, &str); 7] = [
        (b"these are no weights", "text", save),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "a web page (HTML)", page),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
        (b"{\"err\": {\"code\": 404}}", "JSON", save),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "GZ (gzip)", "unpack it first"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "HDF5, as Keras and MATLAB write it", save),
        (b"\x08\x07\x12\x07pytorch\x1a\x03", "ONNX", save),
    ];
    for (bytes, what, remedy) in others {
        std::fs::write(place.join("other.pth"), bytes).unwrap();
        let what = format!(
            "other.pth: this is {what}, neither a safetensors file nor a PyTorch checkpoint; {}",
            if remedy == "git lfs pull" { "get the file with git lfs pull" } else { remedy }
        );
        refused(&place, "other.pth", &[&what]);
    }
    let whole = std::fs::read(trained().join("epoch-02.safetensors")).unwrap();
    for (name, len) in [("short.safetensors", whole.len() - 1), ("stub.safetensors", 1000)] {
        std::fs::write(place.join(name), &whole[..len]).unwrap();
        refused(&place, name, &[name, "damaged weights file", "copy or download it again"]);
    }
}

#[test]
fn a_pickle_that_asks_for_more_than_tensors() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights/malicious.pth");
    refused(
        &Place::new(),
        file.to_str().unwrap(),
        &["the pickle asks for the Python object", "system", "safetensors"],
    );
}

#[test]
fn weights_of_another_architecture() {
    let place = Place::new();
    let all = weights::read(&trained().join("epoch-02.safetensors")).unwrap();
    let write = |name: &str, tensor: Tensor| {
        let mut weights = weights::Weights { metadata: all.metadata.clone(), ..Default::default() };
        weights.tensors.insert("conv1.weight".into(), tensor);
        weights::write(&place.join(name), &weights).unwrap();
    };
    write("shape.safetensors", Tensor::from_f32(vec![64, 3, 3, 3], vec![0.0; 64 * 27]));
    let shape = [
        "tensor \"conv1.weight\" has shape [64, 3, 3, 3], wanted [64, 3, 7, 7]; weights of a ResNet-18",
    ];
    refused(&place, "shape.safetensors", &shape);
    write("part.safetensors", all.tensors["conv1.weight"].clone());
    refused(&place, "part.safetensors", &["tensors are missing: ", "weights of a ResNet-18"]);
}

#[test]
fn weights_without_clusters_can_only_be_trained_from() {
    let place = Place::new();
    let mut all = weights::read(&trained().join("epoch-02.safetensors")).unwrap();
    all.tensors.retain(|name, _| !name.starts_with("fpn.") && !name.starts_with("classifier"));
    all.metadata.clear();
    weights::write(&place.join("resnet18.safetensors"), &all).unwrap();
    let words = format!("eval --data {} --checkpoint resnet18.safetensors", scenes().display());
    holds(&place.picie(&words).fails(), &["these are ImageNet weights", "picie train --weights"]);
    std::fs::create_dir(place.join("run")).unwrap();
    std::fs::copy(trained().join("run.json"), place.join("run/run.json")).unwrap();
    std::fs::copy(place.join("resnet18.safetensors"), place.join("run/checkpoint.safetensors"))
        .unwrap();
    let why = place.picie("train --run run --resume").fails();
    holds(
        &why,
        &[
            "checkpoint.safetensors: these are weights, not the checkpoint of a run",
            "--weights of a new run",
        ],
    );
}
