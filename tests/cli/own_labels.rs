//! Training and evaluation on labels of people's own.

use serde_json::Value;

use super::{Place, TINY, files, holds, scenes, trained};

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

#[test]
fn label_maps_of_any_kind_are_read_or_it_is_said_why_not() {
    let place = Place::new();
    own(&place);
    let checkpoint = trained().join("epoch-02.safetensors");
    let eval = format!("eval --data own --size 32 --checkpoint {}", checkpoint.display());
    // Folders in capitals.
    std::fs::rename(place.join("own/masks"), place.join("own/Masks")).unwrap();
    std::fs::rename(place.join("own/images"), place.join("own/IMAGES")).unwrap();
    let ran = place.picie(&eval).succeeds();
    holds(&ran.out, &["class 0", "class 1", "class 2"]);
    assert!(!ran.err.contains("left out"), "{ran:?}");
    let maps = place.join("own/Masks");
    let each = |change: &dyn Fn(image::GrayImage) -> image::DynamicImage| {
        for name in files(&maps) {
            let map = image::open(maps.join(&name)).unwrap().into_luma8();
            change(map).save(maps.join(name)).unwrap();
        }
    };
    // 16 bits, then masks of two values, of which 255 is no hole.
    each(&|map| image::DynamicImage::from(map).into_luma16().into());
    let ran = place.picie(&eval);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    holds(
        &ran.err,
        &[
            "warning: label maps are not read: ",
            "the label map holds the value 257, and 255 is the largest",
        ],
    );
    each(&|map| {
        image::ImageBuffer::from_fn(map.width(), map.height(), |x, y| {
            image::Luma([u16::from(map.get_pixel(x, y).0[0] > 1) * 255])
        })
        .into()
    });
    holds(&place.picie(&eval).succeeds().out, &["class 0", "class 255"]);
    // Colours that nobody named: what needs no labels goes on.
    each(&|map| image::DynamicImage::from(map).into_rgb8().into());
    holds(&place.picie(&eval).err, &["own: there are no label maps that can be compared with"]);
    let train = format!("train --plan --data own {TINY} --recipe demo");
    let said = place.picie(&train).succeeds().err;
    holds(&said, &["warning: label maps are not read: ", "this one is Rgb of 8 bits; name the"]);
    let classes = r##"[{"name": "off", "color": "#000000"}, {"name": "on", "color": "#010101"}]"##;
    std::fs::write(place.join("own/classes.json"), classes).unwrap();
    holds(&place.picie(&eval).succeeds().out, &["off", "on"]);
}
