//! Training and evaluation on labels of people's own.

use serde_json::Value;

use super::{Place, TINY, holds, scenes};

/// The scenes as people keep their own data: images, labels of few values, names in a file.
fn own(place: &Place) {
    for (tree, to) in [("images", "images"), ("annotations", "masks")] {
        std::fs::create_dir_all(place.join(format!("own/{to}"))).unwrap();
        let from = scenes().join(tree).join("train2017");
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            let to = place.join(format!("own/{to}")).join(entry.file_name());
            std::fs::copy(entry.path(), &to).unwrap();
            if tree == "annotations" {
                let map = picie::data::decode::label(&to).unwrap();
                let ids: Vec<u8> = map.ids.iter().map(|id| id % 3).collect();
                crate::util::files::write_label(&to, map.width, map.height, &ids);
            }
        }
    }
}

#[test]
fn own_classes_are_learned_scored_and_named() {
    let place = Place::new();
    own(&place);
    let tiny = TINY.replace("--clusters 9", "").replace("--epochs 2", "--epochs 1");
    let train = |words: &str| place.picie(&format!("train --data own {tiny} {words}"));
    let ran = train("--recipe supervised --run sup --json").succeeds();
    let run: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(run["epochs"][0]["miou"].as_f64().is_some());
    let eval = "eval --data own --checkpoint sup/checkpoint.safetensors";
    holds(&place.picie(eval).succeeds().out, &["class 0", "class 1", "class 2"]);

    std::fs::write(place.join("own/classes.txt"), "sky blue\nsea\nland\n").unwrap();
    holds(&place.picie(eval).succeeds().out, &["sky blue", "sea", "land"]);
    // Without a recipe the numbers for photos are taken, and labels give scores and names.
    let ran = train("--run photos --clusters 4").succeeds();
    holds(&ran.err, &["recipe photos (a folder of images and one of label maps, on the CPU"]);
    holds(&ran.out, &["mIoU"]);
    let names = place.picie("name --checkpoint photos/checkpoint.safetensors").succeeds().out;
    holds(&names, &["sky blue"]);
    holds(&std::fs::read_to_string(place.join("photos/report.html")).unwrap(), &["sky blue"]);
    let why = train("--recipe supervised --run more --clusters 5").fails();
    holds(&why, &["--clusters 5, but classes.txt has 3 classes"]);
}
