//! What `picie segment` writes beside label maps and overlays.

use picie::net::weights;
use serde_json::Value;

use super::{label_map, photo};
use crate::cli::{Place, files, holds, trained};

fn json(place: &Place, path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(place.join(path)).unwrap()).unwrap()
}

/// A place with two photos and a checkpoint whose cluster 3 is called by the user.
fn place() -> Place {
    let place = Place::new();
    std::fs::create_dir_all(place.join("in/sub")).unwrap();
    photo(97, 50).save(place.join("in/a.png")).unwrap();
    photo(40, 64).save(place.join("in/sub/b.png")).unwrap();
    std::fs::copy(trained().join("epoch-02.safetensors"), place.join("c.safetensors")).unwrap();
    place.picie("name --checkpoint c.safetensors 3=sky").succeeds();
    place
}

#[test]
fn names_colours_and_shares_are_those_of_the_label_maps() {
    let place = place();
    let ran = place.picie("segment --checkpoint c.safetensors --out out --json in").succeeds();
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    let all = json(&place, "out/segments.json");
    let listed = place.picie("name --checkpoint c.safetensors --json").succeeds().out;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mut means = [0.0; 9];
    for (at, photo) in ["a", "sub/b"].iter().enumerate() {
        let entry = &all["photos"][at];
        assert_eq!(entry["photo"], format!("in/{photo}.png"));
        assert_eq!(entry["labels"], format!("{photo}-labels.png"));
        assert_eq!(said["photos"][at]["labels"], format!("out/{photo}-labels.png"));
        let (size, values, palette) = label_map(&place.join(format!("out/{photo}-labels.png")));
        assert_eq!((&entry["width"], &entry["height"]), (&size.0.into(), &size.1.into()));
        for (id, colour) in palette.chunks(3).enumerate() {
            let text = format!("#{:02x}{:02x}{:02x}", colour[0], colour[1], colour[2]);
            assert_eq!(all["segments"][id]["colour"], text);
            let count = values.iter().filter(|&&value| usize::from(value) == id).count();
            let share = 100.0 * count as f64 / values.len() as f64;
            means[id] += share / 2.0;
            let own = entry["segments"].as_array().unwrap().iter().find(|s| s["id"] == id);
            let told = own.map_or(0.0, |own| own["share"].as_f64().unwrap());
            // Three digits are written.
            assert!((told - share).abs() <= 5.1e-4, "{photo} {id}: {told}, not {share}");
        }
    }
    for (id, mean) in means.iter().enumerate() {
        let cluster = &all["segments"][id];
        assert!((cluster["share"].as_f64().unwrap() - mean).abs() <= 5.1e-4, "{cluster}");
        for key in ["id", "name", "colour"] {
            assert_eq!(cluster[key], listed["segments"][id][key]);
        }
    }
    assert_eq!((&all["segments"][3]["name"], &all["segments"]), (&"sky".into(), &said["segments"]));
    assert_eq!(
        (&said["file"], &said["sheet"]),
        (&"out/segments.json".into(), &"out/sheet.png".into())
    );
    assert!(image::image_dimensions(place.join("out/sheet.png")).unwrap().1 > 240);
    // Nothing of it is taken for a photo, even beside the photos, and all is written anew.
    for _ in 0..2 {
        place.picie("segment --checkpoint c.safetensors --out in --cutouts in").succeeds();
        assert_eq!(json(&place, "in/segments.json")["photos"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn cutouts_and_scores_are_of_the_same_clusters() {
    let place = place();
    let words = "segment --checkpoint c.safetensors --out out --cutouts --scores in/a.png";
    place.picie(words).succeeds();
    let (_, values, _) = label_map(&place.join("out/a-labels.png"));
    let entry = &json(&place, "out/segments.json")["photos"][0];
    let cutouts = entry["cutouts"].as_object().unwrap();
    let source = image::open(place.join("in/a.png")).unwrap().into_rgb8();
    for (id, path) in cutouts {
        assert_eq!(*path, format!("a-cutout-{id}.png"));
        let cut = image::open(place.join("out").join(path.as_str().unwrap())).unwrap();
        for ((pixel, value), source) in cut.into_rgba8().pixels().zip(&values).zip(source.pixels())
        {
            let [r, g, b] = source.0;
            let own = id.parse() == Ok(*value);
            assert_eq!(pixel.0, if own { [r, g, b, 255] } else { [0; 4] });
        }
    }
    let occur: std::collections::BTreeSet<u8> = values.iter().copied().collect();
    assert_eq!((cutouts.len(), files(&place.join("out")).len()), (occur.len(), occur.len() + 5));
    // Scores are of one quarter of the input's 64 × 128 pixels.
    let scores = weights::read(&place.join("out/a-scores.safetensors")).unwrap();
    let scores = &scores.tensors["scores"];
    assert_eq!(scores.shape, [16, 32, 9]);
    // The pixel in the middle of a cell of scores has the best of these, nearly always.
    let best = |at: usize| {
        let own = &scores.f32().unwrap()[at * 9..][..9];
        (0..9).max_by(|&a, &b| own[a].total_cmp(&own[b])).unwrap()
    };
    let same = (0..16 * 32).filter(|&at| {
        let (x, y) = ((2 * (at % 32) + 1) * 97 / 64, (2 * (at / 32) + 1) * 50 / 32);
        usize::from(values[y * 97 + x]) == best(at)
    });
    let same = same.count();
    assert!(same >= 16 * 32 * 9 / 10, "{same}");
}

#[test]
fn what_is_there_is_not_written_over() {
    let place = place();
    for name in ["a-cutout-0.png", "a-scores.safetensors", "segments.json", "sheet.png"] {
        std::fs::copy(place.join("in/a.png"), place.join("in").join(name)).unwrap();
        let words = format!(
            "segment --checkpoint c.safetensors --out in --cutouts --scores in/a.png in/{name}"
        );
        holds(&place.picie(&words).fails(), &[&format!("would be written over in/{name}")]);
        std::fs::remove_file(place.join("in").join(name)).unwrap();
    }
    photo(9, 9).save(place.join("in/sheet.png")).unwrap();
    let said = place.picie("segment --checkpoint c.safetensors --out in in/a.png").fails();
    holds(&said, &["in/sheet.png: there is an image that picie did not draw"]);
}

#[test]
fn a_table_of_somebody_is_not_overwritten() {
    let place = Place::new();
    photo(40, 30).save(place.join("a.png")).unwrap();
    std::fs::create_dir(place.join("out")).unwrap();
    std::fs::write(place.join("out/segments.json"), "[1, 2]").unwrap();
    let checkpoint = trained().join("epoch-02.safetensors");
    let words = format!("segment --checkpoint {} --out out a.png", checkpoint.display());
    holds(&place.picie(&words).fails(), &["out/segments.json: there is a file of this name that"]);
    assert_eq!(files(&place.join("out")).len(), 1);
    std::fs::remove_file(place.join("out/segments.json")).unwrap();
    place.picie(&words).succeeds();
    place.picie(&words).succeeds();
}
