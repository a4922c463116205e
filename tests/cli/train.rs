use image::GenericImageView;
use serde_json::Value;

use super::{Place, TINY, files, holds, scenes, trained};

fn rows(run: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_without_data_uses_the_scenes_of_the_cache_and_leaves_a_whole_run_folder() {
    let run = trained();
    let names = files(run);
    let names: Vec<String> = names.iter().map(|p| p.display().to_string()).collect();
    let pictures = ["1-000000000001.png", "2-000000000002.png", "3-000000000003.png", "sheet.png"];
    let pictures = pictures.map(|name| format!("pictures/{name}"));
    let mut want: Vec<&str> = pictures.iter().map(String::as_str).collect();
    want.extend([
        "checkpoint.safetensors",
        "epoch-01.safetensors",
        "epoch-02.safetensors",
        "metrics.jsonl",
    ]);
    want.extend(["plan.txt", "report.html", "run.json", "run.lock", "table.txt"]);
    want.sort();
    assert_eq!(names, want);

    let settings: Value =
        serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(settings["recipe"]["name"], "demo");
    for (flag, value) in TINY.split("--").skip(1).map(|f| f.trim().split_once(' ').unwrap()) {
        assert_eq!(settings["recipe"][flag.replace('-', "_")].to_string(), value, "{flag}");
    }
    assert_eq!(
        (&settings["seed"], &settings["version"]),
        (&1.into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert_eq!(settings["data"], scenes().canonicalize().unwrap().to_str().unwrap());
    assert_eq!(
        (&settings["host"]["threads"], settings["host"]["os"].is_string()),
        (&1.into(), true)
    );

    for (name, size) in pictures.iter().zip([Some((32, 32)), Some((32, 32)), Some((32, 32)), None])
    {
        let picture = image::open(run.join(name)).unwrap();
        assert!(size.is_none_or(|size| size == picture.dimensions()), "{name}");
    }
}

#[test]
fn metrics_have_a_line_for_each_epoch_with_the_promised_numbers() {
    let rows = rows(trained());
    assert_eq!(rows.len(), 2);
    for (i, row) in rows.iter().enumerate() {
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} of {row}"));
        assert_eq!(number("epoch"), i as f64 + 1.0);
        let seconds = number("kmeans_s") + number("labels_s") + number("train_s");
        assert!(seconds > 0.0 && number("eval_s") > 0.0);
        // Rounding of a division.
        assert!((number("images_per_s") * seconds - 6.0).abs() <= 1e-9, "{row}");
        // Cross-entropy over nine clusters begins near ln 9 = 2.2.
        assert!(number("loss") > 0.1 && number("loss") < 4.0, "{row}");
        for name in ["acc", "miou", "miou_present"] {
            assert!((0.0..=100.0).contains(&number(name)), "{name} of {row}");
        }
        assert!(number("miou") <= number("miou_present") && number("acc") > 0.0, "{row}");
        assert_eq!(row["untrained"]["miou"].is_number(), i == 0);
    }
}

/// Without labels, from an earlier run's weights, with files that are no images, on batches larger
/// than the data set.
#[test]
fn a_plain_folder_trains_and_shows_clusters() {
    let place = Place::new();
    let photos = place.join("my photos/ünï ☃/deep/er");
    std::fs::create_dir_all(&photos).unwrap();
    let pixels = image::RgbImage::from_fn(70, 50, |x, y| {
        image::Rgb([(x * 3) as u8, (y * 5) as u8, (x * y) as u8])
    });
    let whole = image::DynamicImage::from(pixels);
    // Names that meet in the pictures' folder, and one that is too long for it.
    let long = format!("{}/{}.bmp", "d".repeat(150), "ö".repeat(60));
    std::fs::create_dir(photos.join("d".repeat(150))).unwrap();
    for name in ["a.jpg", "a.webp", "sheet.png", "b.tiff", &long] {
        whole.save(photos.join(name)).unwrap();
    }
    whole.crop_imm(0, 0, 1, 1).save(photos.join("../one.png")).unwrap();
    whole.to_luma8().save(photos.join("../../GREY.JPG")).unwrap();
    let jpeg = std::fs::read(photos.join("a.jpg")).unwrap();
    std::fs::write(place.join("my photos/0.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    for empty in 1..=6 {
        std::fs::write(place.join(format!("my photos/{empty}.jpg")), "").unwrap();
    }
    std::fs::write(place.join("my photos/notes.txt"), "no image").unwrap();

    let weights = trained().join("checkpoint.safetensors");
    let tiny = TINY
        .replace("--epochs 2", "--epochs 1")
        .replace("batch 2", "batch 99")
        .replace("cluster 4", "cluster 99");
    let words = format!("train {tiny} --weights {} --run run", weights.display());
    let ran = place.picie_on(&words, ["--data", "my photos"]).succeeds();
    let bad = "0.jpg: the JPEG is cut short; copy or download it again";
    holds(
        &ran.err,
        &[&format!("left out: {}", place.path().canonicalize().unwrap().display()), bad],
    );
    holds(
        &ran.err,
        &["6.jpg: the file is empty; copy or download it again", "7 images left out, 7 used"],
    );
    let head = [
        "epoch", "k-means", "loss", "within", "cross", "largest", "empty", "labels", "train",
        "eval",
    ];
    holds(&ran.out, &head);
    assert!(!ran.out.contains("mIoU") && !ran.out.contains("acc"), "{ran:?}");
    holds(&ran.err, &["epoch 1 of 1 ", "loss ", "largest cluster "]);
    holds(
        &ran.out,
        &[
            "run: run\n",
            "pictures: run/pictures\n",
            "picie segment --checkpoint run/checkpoint.safetensors",
        ],
    );
    let [row] = &rows(&place.join("run"))[..] else { panic!("one row") };
    assert!(row["miou"].is_null() && row["acc"].is_null() && row["loss"].is_number(), "{row}");
    assert_eq!(files(&place.join("run/pictures")).len(), 6 + 1);

    let data = place.join("my photos");
    let words = format!("eval --classes 27 --checkpoint {}", weights.display());
    let why = place.picie_on(&words, ["--data".as_ref(), data.as_os_str()]).fails();
    holds(
        &why,
        &[
            "a plain folder of images has no labels",
            "give a data set in the layout of COCO-Stuff, Cityscapes, Potsdam, Pascal VOC",
        ],
    );
}

#[test]
fn validation_images_without_a_pixel_of_the_classes_do_not_stop_training() {
    let place = Place::new();
    let data = place.scenes("data");
    let sky = image::GrayImage::from_pixel(480, 360, image::Luma([156]));
    for entry in std::fs::read_dir(data.join("annotations/val2017")).unwrap() {
        let path = entry.unwrap().path();
        let size = image::image_dimensions(&path).unwrap();
        image::imageops::resize(&sky, size.0, size.1, image::imageops::Nearest).save(path).unwrap();
    }
    // As many stored pixels as the network takes, one image, and sky is no thing.
    let tiny = TINY.replace("--epochs 2", "--epochs 1").replace("--stored 64", "--stored 32");
    let ran = place
        .picie(&format!("train --data data --run run {tiny} --limit 1 --classes 12"))
        .succeeds();
    holds(&ran.err, &["no evaluation: no pixel of val has one of the classes"]);
    assert!(rows(&place.join("run"))[0]["miou"].is_null());
    // Label maps of another kind are none, and where they are looked for is said.
    for entry in std::fs::read_dir(data.join("annotations/val2017")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::rename(&path, path.with_extension("jpg")).unwrap();
    }
    let ran = place.picie(&format!("train --data data --run other {tiny} --limit 1")).succeeds();
    let said = "no evaluation: no image of val has a label map: ";
    holds(&ran.err, &[said, "data/annotations/val2017: no IMAGE.png, but 3 .jpg\n"]);
    std::fs::remove_dir_all(data.join("annotations/val2017")).unwrap();
    let ran = place.picie(&format!("train --data data --run third {tiny} --limit 1")).succeeds();
    holds(&ran.err, &["IMAGE.png is looked for in ", "val2017: no such file or directory"]);
    // Label maps beside photos are none in a plain folder, which is told of once.
    let folder = "--dataset folder --recipe demo";
    let ran =
        place.picie(&format!("train --data data --run plain {tiny} {folder} --limit 1")).succeeds();
    holds(&ran.err, &["no evaluation: label maps are known in the layout of COCO-Stuff"]);
    assert_eq!(ran.err.matches("6 label maps (annotations/train2017/*.png").count(), 1, "{ran:?}");
    holds(&ran.err, &["--dataset every-image takes them, too"]);
}

#[test]
fn scenes_are_drawn_once_and_never_over_anything() {
    let place = Place::new();
    let ran = place.picie("scenes new/dir --train 2 --val 1 --seed 3").succeeds();
    holds(&ran.out, &["2 training and 1 validation images"]);
    let names = files(&place.join("new/dir"));
    for name in
        ["images/train2017/000000000002.jpg", "annotations/val2017/000000000001.png", "scenes.json"]
    {
        assert!(names.contains(&name.into()), "{names:?}");
    }
    let image = place.join("new/dir/images/train2017/000000000001.jpg");
    let before = std::fs::metadata(&image).unwrap().modified().unwrap();
    place.picie("scenes new/dir --train 2 --val 1 --seed 3").succeeds();
    assert_eq!(std::fs::metadata(&image).unwrap().modified().unwrap(), before);
    holds(
        &place.picie("scenes new/dir --train 2 --val 1 --seed 4").fails(),
        &["new/dir: there is something else"],
    );
    holds(&place.picie("scenes none --train 0").fails(), &["0 training", "at least one"]);
    assert_eq!(std::fs::read_dir(place.join("new")).unwrap().count(), 1);
}

/// Supplement, table 1, in small: two values, two seeds; stopped or finished runs are gone on with.
#[test]
fn a_sweep_trains_each_value_and_seed_and_prints_their_table() {
    let place = Place::new();
    let words = format!(
        "sweep lambda --values 1,2 --seeds 1,2 --data {} {TINY} --set information.shifts=2",
        scenes().display()
    );
    let out = place.picie(&words).succeeds().out;
    let row = |value: &str| {
        out.lines()
            .rev()
            .find(|line| line.split_whitespace().next() == Some(value))
            .map(str::to_string)
    };
    for value in ["1", "2"] {
        assert!(row(value).is_some_and(|row| row.matches('±').count() == 3), "{out}");
        for seed in [1, 2] {
            let run = place.join(format!("runs/sweep-lambda/{value}-seed-{seed}/run.json"));
            let text = std::fs::read_to_string(run).unwrap();
            holds(
                &text,
                &[
                    &format!("\"lambda\": {value}.0"),
                    &format!("\"seed\": {seed}"),
                    "\"method\": \"iic\"",
                ],
            );
        }
    }
    // All runs are there already: the same table at once.
    let again = place.picie(&words).succeeds();
    assert!(!again.err.contains("train "), "{again:?}");
    assert_eq!(again.out.lines().last(), out.lines().last());
}

#[test]
fn without_k_means_the_first_steps_tell_how_long_a_run_takes() {
    let place = Place::new();
    let words = format!("train --recipe iic --run run --data {} {TINY}", scenes().display());
    let said = place.picie(&words).succeeds().err;
    holds(&said, &[" to go, by the time of the first steps", "warning: the run has "]);
}
