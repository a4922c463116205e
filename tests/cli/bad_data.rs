//! Data that cannot be used: one clear line, and nothing left behind.

use super::{Place, TINY, files, holds, scenes, trained};

fn eval(data: &str) -> String {
    format!("eval --checkpoint {} --data {data}", trained().join("epoch-02.safetensors").display())
}

#[test]
fn folders_that_hold_no_data_set() {
    let place = Place::new();
    for dir in ["empty", "text", "coco/images/train2017", "city/leftImg8bit/train/ulm"] {
        std::fs::create_dir_all(place.join(dir)).unwrap();
    }
    std::fs::write(place.join("text/notes.txt"), "no image").unwrap();
    let before = files(&place.path());
    let cases = [
        ("gone", "gone: no such file or directory; check the path"),
        ("empty", "empty: no image in this folder; give a folder of jpg"),
        ("text", "text: no image in this folder (passed over: 1 .txt); give a folder of jpg"),
        ("text/notes.txt", "notes.txt: not a directory; name a folder, not a file"),
        ("coco", "images/train2017: no image in this folder; unpack the images there"),
        (
            "city",
            "leftImg8bit/train: no *_leftImg8bit.png below this folder; unpack leftImg8bit there",
        ),
        ("text --dataset coco-stuff", "images/train2017: no such folder; unpack the images there"),
        (
            "text --dataset cityscapes",
            "leftImg8bit/train: no such folder; unpack leftImg8bit there",
        ),
    ];
    for (data, why) in cases {
        holds(&place.picie(&format!("train --data {data}")).fails(), &[why]);
        holds(&place.picie(&format!("{} --split train", eval(data))).fails(), &[why]);
    }
    let splits = place.picie(&format!("train --split night --data {}", scenes().display())).fails();
    holds(&splits, &["there is no split \"night\" here; choose among train, val"]);
    // No run folder either.
    assert_eq!(files(&place.path()), before);
    assert!(!place.join("runs").exists());
}

#[test]
fn numbers_that_contradict_themselves_or_the_data() {
    let place = Place::new();
    let cases = [
        ("--size 100", "--size 100; use a multiple of 32"),
        ("--size 0", "--size 0; use a multiple of 32"),
        ("--set colour=1", "--set colour=1: the recipe has no such number; take a name"),
        ("--set augment.grey_p=much", "--set augment.grey_p=much: invalid type: string"),
        ("--set augment.grey_p", "--set augment.grey_p: not NAME=VALUE; take a name"),
        ("--size 96", "--stored 64 is below --size 96; store images at least as large"),
        ("--clusters 1", "--clusters 1; use 2 to 65535"),
        ("--clusters 70000", "--clusters 70000; use 2 to 65535"),
        // One batch of 4 images of 8 × 8 features.
        (
            "--clusters 257",
            "256 points cannot form 257 clusters; use more images, a larger --size or fewer --clusters",
        ),
        ("--batch 0", "--batch 0; use at least 1"),
        ("--batch-cluster 0", "--batch-cluster 0; use at least 1"),
        ("--epochs 0", "--epochs 0; use at least 1"),
        ("--init-batches 0", "--init-batches 0; use at least 1"),
        ("--update-every 0", "--update-every 0; use at least 1"),
        ("--kmeans-iters 0", "--kmeans-iters 0; use at least 1"),
        ("--lr 0", "--lr 0; use a positive number"),
        ("--lr NaN", "--lr NaN; use a positive number"),
        ("--limit 0", "--limit 0; use at least 1"),
    ];
    for (flag, why) in cases {
        let name = flag.split(' ').next().unwrap();
        let tiny: Vec<&str> = TINY
            .split("--")
            .map(str::trim)
            .filter(|f| !f.is_empty() && !format!("--{f}").starts_with(&format!("{name} ")))
            .collect();
        let tiny: String = tiny.iter().map(|f| format!("--{f} ")).collect();
        let ran =
            place.picie(&format!("train --run run --data {} {tiny} {flag}", scenes().display()));
        holds(&ran.fails(), &[why]);
        assert!(!place.join("run").exists(), "{flag} leaves a run folder");
    }
    holds(
        &place.picie(&format!("{} --size 33", eval(scenes().to_str().unwrap()))).fails(),
        &["--size 33; use a multiple of 32"],
    );
    holds(
        &place.picie(&format!("{} --limit 0", eval(scenes().to_str().unwrap()))).fails(),
        &["--limit 0; use at least 1"],
    );
    holds(
        &place.picie("train --data . --dataset folder --classes 15").fails(),
        &["no table of 15 classes; use --classes 27 for this data set"],
    );
}

#[test]
fn systems_that_do_not_fit_the_data() {
    let place = Place::new();
    std::fs::create_dir(place.join("photos")).unwrap();
    image::RgbImage::new(40, 40).save(place.join("photos/a.png")).unwrap();
    let scenes = scenes().display();
    let weights = trained().join("epoch-02.safetensors");
    let weights = weights.display();
    let tiny = TINY.replace("--clusters 9", "");
    let cases = [
        (
            "--recipe supervised --data photos".into(),
            "the recipe supervised learns from labels, and a plain folder of images has none; give a data set with label maps",
        ),
        (
            format!("--recipe supervised --clusters 9 --data {scenes}"),
            "--clusters 9, but coco-stuff 27 has 27 classes, which supervised learns; leave it out",
        ),
        (
            format!("--recipe iic --freeze backbone --data {scenes}"),
            "--freeze backbone in the recipe iic; a frozen network learns from labels only: use --recipe transfer",
        ),
        (
            format!("--recipe mdc --auxiliary 45 --data {scenes}"),
            "--auxiliary 45 in the recipe mdc; over-clustering is PiCIE+H's and IIC's",
        ),
        (
            format!("--recipe mdc --clusters 3 --data {scenes}"),
            "7 classes occur in the labels, more than 3 clusters can be matched with; use at least 7 --clusters",
        ),
        (
            format!("--recipe iic --lambda 0 --data {scenes}"),
            "--lambda 0; use a positive number, such as 1 or 1.5",
        ),
        (
            format!("--recipe iic-res12 --merge cascade --data {scenes}"),
            "--merge cascade of a part of the pyramid; use --merge direct",
        ),
        (
            format!("--recipe mdc --clusters 9 --sobel --weights {weights} --data {scenes}"),
            "--sobel",
        ),
    ];
    for (words, why) in cases {
        let ran = place.picie(&format!("train --run run {tiny} {words}"));
        holds(&ran.fails(), &[why]);
        assert!(!place.join("run").exists(), "{words} leaves a run folder");
    }
    holds(
        &place.picie(&format!("sweep clusters --data {scenes} {tiny}")).fails(),
        &["no value of clusters to try; list them: --values A,B,C"],
    );
    holds(
        &place.picie(&format!("sweep lambda --values much --data {scenes} {tiny}")).fails(),
        &["much is no value of lambda; check --values"],
    );
}

#[test]
fn images_that_cannot_be_read_are_left_out_or_strictly_refused() {
    let place = Place::new();
    let data = place.scenes("data");
    let image = |n: usize| data.join(format!("images/val2017/00000000000{n}.jpg"));
    let whole = std::fs::read(image(1)).unwrap();
    std::fs::write(image(1), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(image(3), "").unwrap();
    let ran = place.picie(&format!("{} --json", eval("data"))).succeeds();
    holds(&ran.out, &["\"images\":1,"]);
    let listed = [
        "000000000001.jpg: the JPEG is cut short; copy",
        "000000000003.jpg: the file is empty; copy",
    ];
    holds(&ran.err, &listed);
    holds(&ran.err, &["2 images left out, 1 used"]);
    holds(&place.picie(&format!("{} --strict", eval("data"))).fails(), &[listed[0]]);
    let strict = place.picie(&format!("train --run run --data data --split val --strict {TINY}"));
    holds(&strict.fails(), &[listed[0]]);
    std::fs::write(image(2), "").unwrap();
    let none = place.picie(&format!("train --run run --data data --split val {TINY}")).fails();
    holds(&none, &["none of the 3 images can be used; the first: ", "000000000001.jpg"]);
    assert!(!place.join("run").exists());
}

#[test]
fn label_maps_that_do_not_fit() {
    let place = Place::new();
    let data = place.scenes("data");
    let label = |n: usize| data.join(format!("annotations/val2017/00000000000{n}.png"));
    let (w, h) = image::image_dimensions(label(2)).unwrap();
    let map = |w: u32, h: u32, id: u8| {
        image::GrayImage::from_pixel(w, h, image::Luma([id])).save(label(2)).unwrap()
    };

    std::fs::remove_file(label(1)).unwrap();
    let ran = place.picie(&format!("{} --json", eval("data"))).succeeds();
    holds(&ran.out, &["\"images\":2,"]);
    let missing = "000000000001.jpg: no label map for this image; add it, or do without the image";
    holds(&ran.err, &[missing, "1 images left out, 2 used"]);
    holds(&place.picie(&format!("{} --strict", eval("data"))).fails(), &[missing]);

    map(w + 1, h, 156);
    let size = [
        &format!("000000000002.png: the label map is {} × {h} but its image", w + 1),
        "make them the same size",
    ];
    map(w + 1, h, 156);
    holds(&place.picie(&eval("data")).fails(), &size);
    holds(&place.picie(&format!("train --run run --data data {TINY}")).fails(), &size);
    map(w, h, 200);
    let id = ["000000000002.png: the label map holds the value 200", "check --dataset"];
    holds(&place.picie(&eval("data")).fails(), &id);
    let colour = image::RgbImage::new(w, h);
    colour.save(label(2)).unwrap();
    holds(
        &place.picie(&eval("data")).fails(),
        &["000000000002.png: a label map is a grey or a palette PNG", "convert it"],
    );
    std::fs::write(label(2), "").unwrap();
    holds(&place.picie(&eval("data")).fails(), &["000000000002.png: the file is empty"]);
    std::fs::remove_dir_all(data.join("annotations")).unwrap();
    let why = place.picie(&format!("{} --classes 27", eval("data"))).fails();
    holds(&why, &["none of the 3 images can be used", "no label map for this image"]);
    assert!(!place.join("run").exists());
}
