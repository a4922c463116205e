use std::collections::BTreeMap;
use std::path::Path;

use picie::net::weights::{self, Weights};
use serde_json::Value;

use super::{Place, TINY, holds, scenes, trained};

/// `picie eval --json`, which must print one line.
#[track_caller]
fn report(place: &Place, checkpoint: &Path, data: &Path, more: &str) -> Value {
    let words = format!(
        "eval --json --checkpoint {} --data {} {more}",
        checkpoint.display(),
        data.display()
    );
    let ran = place.picie(&words).succeeds();
    assert_eq!((ran.out.lines().count(), ran.out.ends_with('\n')), (1, true), "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn json_equals_the_last_epoch_of_the_run() {
    let place = Place::new();
    let got = report(&place, &trained().join("epoch-02.safetensors"), scenes(), "");
    let metrics = std::fs::read_to_string(trained().join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    for name in ["acc", "miou", "miou_present"] {
        assert_eq!(got[name], last[name], "{name}");
    }
    assert_eq!(
        (&got["images"], &got["classes"], &got["clusters"]),
        (&3.into(), &27.into(), &9.into())
    );
    let rows = got["confusion"].as_array().unwrap();
    let counts: Vec<u64> =
        rows.iter().flat_map(|r| r.as_array().unwrap()).map(|v| v.as_u64().unwrap()).collect();
    // Every pixel of the three scenes has a class.
    assert_eq!((rows.len(), counts.len(), counts.iter().sum::<u64>()), (27, 27 * 9, 3 * 32 * 32));
    // The checkpoint to resume from holds the same network.
    assert_eq!(report(&place, &trained().join("checkpoint.safetensors"), scenes(), ""), got);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn the_table_names_classes_and_parts() {
    let checkpoint = trained().join("epoch-01.safetensors");
    let words = format!("eval --checkpoint {} --data {}", checkpoint.display(), scenes().display());
    let out = Place::new().picie(&words).succeeds().out;
    holds(&out, &["water", "vehicle", "things: acc", "stuff: acc", "3 images: acc", "mIoU"]);
}

#[test]
fn flags_change_what_is_evaluated() {
    let place = Place::new();
    let checkpoint = trained().join("epoch-02.safetensors");
    let report = |more: &str| report(&place, &checkpoint, scenes(), more);
    let base = report("");
    for classifier in ["random", "kmeans"] {
        let other = report(&format!("--classifier {classifier}"));
        assert_ne!(other["confusion"], base["confusion"], "{classifier}");
        assert_eq!(
            other,
            report(&format!("--classifier {classifier}")),
            "{classifier} is not repeatable"
        );
    }
    assert_eq!(report("--limit 2")["images"], 2);
    assert_eq!(report("--split train")["images"], 6);
    assert_eq!(report("--split train,val")["images"], 9);
    assert_eq!(report("--classes 15")["classes"], 15);
    assert_eq!(report("--classes 12")["classes"], 12);
    let sum = |report: &Value| {
        let rows = report["confusion"].as_array().unwrap();
        rows.iter().flat_map(|r| r.as_array().unwrap()).map(|v| v.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(sum(&report("--size 64")), 3 * 64 * 64);
}

/// The scores of an image and of its mirror image, averaged, are those of the mirror image and of
/// the image.
#[test]
fn with_the_flip_a_mirrored_data_set_has_the_same_scores() {
    let place = Place::new();
    let (plain, mirrored) = (place.scenes("plain"), place.scenes("mirrored"));
    for file in super::files(&plain)
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "png" || e == "jpg"))
    {
        // Of the network's size, so that nothing is resized; as PNG, whatever the ending says, so
        // that nothing is lost.
        let image = image::open(plain.join(file)).unwrap();
        let image = image.resize_exact(32, 32, image::imageops::FilterType::Nearest);
        image.save_with_format(plain.join(file), image::ImageFormat::Png).unwrap();
        image.fliph().save_with_format(mirrored.join(file), image::ImageFormat::Png).unwrap();
    }
    let checkpoint = trained().join("epoch-02.safetensors");
    let counts = |data: &Path, more: &str| {
        let rows = report(&place, &checkpoint, data, more)["confusion"].as_array().unwrap().clone();
        rows.iter()
            .flat_map(|r| r.as_array().unwrap().clone())
            .map(|v| v.as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let apart = |more: &str| {
        let (a, b) = (counts(&plain, more), counts(&mirrored, more));
        a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum::<i64>()
    };
    // Of 3072 pixels, some of which may tie within a rounding.
    let (with, without) = (apart("--flip-tta"), apart(""));
    assert!(
        with <= 6 && without > 6,
        "{with} counts are another's with the flip, {without} without"
    );
    assert_ne!(counts(scenes(), "--flip-tta"), counts(scenes(), ""));
    // Any classifier; but not beside other transforms.
    report(&place, &checkpoint, scenes(), "--flip-tta --classifier kmeans");
    let both = format!(
        "eval --checkpoint {} --data {} --tta --flip-tta",
        checkpoint.display(),
        scenes().display()
    );
    let ran = place.picie(&both);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    holds(&ran.err, &["'--tta' cannot be used with '--flip-tta'"]);
}

#[test]
fn cityscapes_is_read_in_both_layouts() {
    let place = Place::new();
    let pixels = |w: u32, h: u32, seed: u32| {
        image::RgbImage::from_fn(w, h, |x, y| image::Rgb([x, y, x + y].map(|v| (v * seed) as u8)))
    };
    for (split, tree, n) in [("val", "gtFine", 1), ("train", "annotations/gtFine", 2)] {
        let name = |what: &str| format!("ulm/ulm_00000{n}_{what}.png");
        let image = place.join("city/leftImg8bit").join(split).join(name("leftImg8bit"));
        let label = place.join("city").join(tree).join(split).join(name("gtFine_labelIds"));
        for path in [&image, &label] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        pixels(80, 40, n).save(image).unwrap();
        // Road left, sky right.
        image::GrayImage::from_fn(80, 40, |x, _| image::Luma([if x < 40 { 7 } else { 23 }]))
            .save(label)
            .unwrap();
    }
    let checkpoint = trained().join("epoch-02.safetensors");
    let both = report(&place, &checkpoint, &place.join("city"), "--split train,val");
    assert_eq!(both["images"], 2);
    let labelled = |class: usize| both["per_class"][class]["labelled"].as_u64().unwrap();
    assert_eq!((labelled(0), labelled(16)), (2 * 16 * 32, 2 * 16 * 32));
    assert_eq!(
        report(&place, &checkpoint, &place.join("city"), "--dataset cityscapes")["images"],
        1
    );
}

/// A run of the released recipe, its file renamed to the released code's names: the same scores
/// must come out, since such a file says by its names alone that levels are merged in a cascade and
/// scored by dot products.
#[test]
fn a_checkpoint_of_the_released_code_is_evaluated_as_the_released_code_does() {
    let place = Place::new();
    let ran = place.picie(&format!(
        "train --data {} --run run --recipe picie-released {} --epochs 1",
        scenes().display(),
        TINY.replace("--epochs 2", "")
    ));
    ran.succeeds();
    let metrics = std::fs::read_to_string(place.join("run/metrics.jsonl")).unwrap();
    let row: Value = serde_json::from_str(metrics.trim()).unwrap();
    assert!(row["fresh"]["miou"].is_number(), "{row}");

    let own = place.join("run/epoch-01.safetensors");
    let rename = |name: &str| {
        let lateral = |n: usize| name.strip_prefix(&format!("fpn.lateral{n}."));
        for (n, layer) in [(2, 4), (3, 3), (4, 2), (5, 1)] {
            if let Some(rest) = lateral(n) {
                return format!("state_dict.module.decoder.layer{layer}.{rest}");
            }
        }
        match name.split_once('.') {
            Some((classifier @ ("classifier1" | "classifier2"), rest)) => {
                format!("{classifier}_state_dict.module.{rest}")
            }
            _ => format!("state_dict.module.backbone.{name}"),
        }
    };
    let Weights { tensors, .. } = weights::read(&own).unwrap();
    let tensors: BTreeMap<_, _> = tensors.into_iter().map(|(name, t)| (rename(&name), t)).collect();
    let released = place.join("released.safetensors");
    weights::write(&released, &Weights { tensors, ..Weights::default() }).unwrap();
    let [mut own, mut released] = [(&own, ""), (&released, "--size 32")]
        .map(|(file, words)| report(&place, file, scenes(), words));
    assert_eq!(own["miou"], row["miou"]);
    // The released code's files say nothing of their clusters.
    for report in [&mut own, &mut released] {
        report.as_object_mut().unwrap().remove("segments");
    }
    assert_eq!(released, own);
}

#[test]
fn transforms_at_test_time_are_twelve_rows_and_the_same_for_a_seed() {
    let place = Place::new();
    let checkpoint = trained().join("epoch-02.safetensors");
    let words =
        format!("eval --tta --checkpoint {} --data {}", checkpoint.display(), scenes().display());
    let text = place.picie(&words).succeeds().out;
    let rows: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for row in [
        "none",
        "brightness",
        "contrast",
        "saturation",
        "hue",
        "grey",
        "blur",
        "photometric",
        "crop",
        "flip",
        "all",
    ] {
        assert!(rows.contains(&row), "{row} is not in\n{text}");
    }
    let json = |more: &str| place.picie(&format!("{words} --json {more}")).succeeds().out;
    assert_eq!(json(""), json("--seed 1"));
    assert_ne!(json(""), json("--seed 2"));
    // Without a transform it is the plain evaluation.
    let rows: Value = serde_json::from_str(&json("")).unwrap();
    assert_eq!(rows["none"]["acc"], report(&place, &checkpoint, scenes(), "")["acc"]);
    assert_eq!(rows.as_object().unwrap().len(), 12);
}
