//! `picie info` of whatever people have.

use serde_json::Value;

use super::{Place, holds, trained};
use crate::util::root;

#[test]
fn checkpoints_runs_and_weights_say_what_they_are() {
    let place = Place::new();
    let about = |path: &std::path::Path| -> Value {
        let said = place.picie_on("info --json", [path]).succeeds().out;
        serde_json::from_str(&said).unwrap()
    };
    let run = about(trained());
    assert_eq!((&run["kind"], &run["epochs_done"]), (&"run".into(), &2.into()), "{run}");
    assert_eq!(about(&trained().join("run.json")), run);
    assert_eq!(run["images_and_validation_images"], serde_json::json!([6, 3]));
    let checkpoint = about(&trained().join("checkpoint.safetensors"));
    assert_eq!(checkpoint["clusters"].as_array().unwrap().len(), 9);
    assert_eq!(
        (&checkpoint["can_be_resumed"], &checkpoint["epoch_to_come"]),
        (&true.into(), &3.into())
    );
    assert_eq!(about(&trained().join("epoch-02.safetensors"))["can_be_resumed"], false);
    let weights = about(&root().join("tests/golden/weights/resnet34.pth"));
    assert_eq!((&weights["kind"], &weights["backbone"]), (&"weights".into(), &"resnet34".into()));
    let read = weights["tensors_read"].as_u64().unwrap();
    assert_eq!(read + weights["tensors_left_out"].as_u64().unwrap(), weights["tensors"]);
    let text = place.picie_on("info", [trained()]).succeeds().out;
    holds(&text, &["kind                          run\n", "command ", "picie train "]);

    std::fs::create_dir(place.join("empty")).unwrap();
    std::fs::write(place.join("a.txt"), "hello").unwrap();
    std::fs::write(place.join("a.json"), "{}").unwrap();
    holds(&place.picie("info empty").fails(), &["empty: no folder of a run: it has no run.json"]);
    holds(&place.picie("info a.json").fails(), &["a.json: not the settings of a run"]);
    holds(&place.picie("info a.txt").fails(), &["a.txt: "]);
    holds(&place.picie("info gone").fails(), &["gone: no such file or directory"]);
}
