//! `picie compare` and `picie neighbors`.

use std::path::Path;

use super::{Place, TINY, holds, scenes, trained};

fn width_and_height(path: &Path) -> (u32, u32) {
    image::image_dimensions(path).unwrap()
}

#[test]
fn a_column_for_each_checkpoint_and_a_row_for_each_image() {
    let place = Place::new();
    let data = scenes().display();
    place
        .picie(&format!(
            "train --data {data} --run run --recipe iic --clusters 27 --epochs 1 --stored 64 --size 64 --batch 2"
        ))
        .succeeds();
    let checkpoint = |name: &str| format!("--checkpoint {}", trained().join(name).display());
    let (one, two) = (checkpoint("epoch-01.safetensors"), checkpoint("epoch-02.safetensors"));
    let sheet = |out: &str, words: &str| {
        let ran = place.picie(&format!("compare --data {data} --out {out} {words}")).succeeds();
        (ran.out, width_and_height(&place.join(out)))
    };
    let (said, (width, height)) = sheet("a.png", &format!("{one} --images 2"));
    holds(&said, &["2 images: a.png"]);
    assert!(!said.contains("own input size"), "{said}");
    // 32 pixels are shown eight times as large, with gaps of 10: image, prediction, ground truth.
    assert_eq!(width, 10 + 3 * 266);
    // Another column has the same height or a legend line more; another row is 266 pixels.
    let (_, both) = sheet("b.png", &format!("{one} {two} --images 2"));
    assert_eq!(both.0, 10 + 4 * 266);
    // There are three images.
    let (_, all) = sheet("c.png", &one);
    assert!(all.1 >= height + 266 && all.0 == width, "{all:?} after {height}");
    // The other network's input is twice as large, and padded where it is not cut.
    let other = "--checkpoint run/checkpoint.safetensors";
    let (said, (width, _)) = sheet("d.png", &format!("{one} {other}"));
    holds(
        &said,
        &["each network sees images at its own input size", "they are shown at 64 pixels"],
    );
    // 64 pixels are shown four times as large.
    assert_eq!(width, 10 + 4 * (256 + 10));
}

#[test]
fn without_labels_each_checkpoint_has_its_own_clusters() {
    let place = Place::new();
    let photos = scenes().join("images/val2017");
    let checkpoint = |name: &str| format!("--checkpoint {}", trained().join(name).display());
    let (one, two) = (checkpoint("epoch-01.safetensors"), checkpoint("epoch-02.safetensors"));
    let sheet = |out: &str, words: &str| {
        let data = photos.display();
        place.picie(&format!("compare --data {data} --out {out} {words}")).succeeds();
        image::open(place.join(out)).unwrap().into_rgb8()
    };
    // No column for a truth.
    let (alone, both) = (sheet("a.png", &one), sheet("b.png", &format!("{one} {two}")));
    assert_eq!([alone.width(), both.width()], [10 + 2 * 266, 10 + 3 * 266]);
    // The sheet of one begins as that of both does, and its legend is shorter.
    let same = |x: u32, y: u32| alone.get_pixel(x, y) == both.get_pixel(x, y);
    assert!((0..alone.width()).all(|x| (40..266).all(|y| same(x, y))));
    assert!(both.height() > alone.height());
    // A second one whose clusters are all of one name, and so of one colour, has it beside others.
    let file = place.join("second.safetensors");
    std::fs::copy(trained().join("epoch-02.safetensors"), file).unwrap();
    let names: Vec<String> = (0..9).map(|id| format!("{id}=one")).collect();
    let rename = format!("name --checkpoint second.safetensors {}", names.join(" "));
    place.picie(&rename).succeeds();
    let second = "--checkpoint second.safetensors";
    let (alone, both) = (sheet("c.png", second), sheet("d.png", &format!("{one} {second}")));
    let same = |x: u32, y: u32| alone.get_pixel(266 + x, y) == both.get_pixel(532 + x, y);
    assert!((10..266).all(|x| (40..266).all(|y| same(x, y))));
}

#[test]
fn what_cannot_be_compared_is_one_line() {
    let place = Place::new();
    let data = scenes().display();
    place
        .picie(&format!(
            "train --data {data} --run run --recipe supervised {} --epochs 1 --classes 15",
            TINY.replace("--epochs 2", "").replace("--clusters 9", "")
        ))
        .succeeds();
    let own = format!("--checkpoint {}", trained().join("checkpoint.safetensors").display());
    let compare =
        |words: &str| place.picie(&format!("compare --data {data} --out x.png {own} {words}"));
    let line = compare("--checkpoint run/checkpoint.safetensors").fails();
    holds(
        &line,
        &["run/checkpoint.safetensors", "trained on 15 classes", "the sheet has 27", "--classes"],
    );
    holds(&compare("--images 0").fails(), &["--images 0; show at least 1"]);
    assert!(!place.join("x.png").exists());
    // On the classes that it knows it is compared with clusters.
    compare("--checkpoint run/checkpoint.safetensors --classes 15").succeeds();
    assert!(place.join("x.png").exists());
}

/// Images are found by their names with or without folders and ending, in both commands alike.
#[test]
fn images_are_called_as_people_call_them() {
    let place = Place::new();
    let (data, name) = (scenes().display(), scene());
    let set =
        format!("--checkpoint {} --data {data}", trained().join("epoch-02.safetensors").display());
    let names = [name.clone(), format!("{name}.jpg"), format!("val2017/{name}")];
    let said = |query: &str, out: &str| {
        let words = format!("neighbors {set} --query {query}:160,99 --out {out}");
        place.picie(&words).succeeds();
        let words = format!("compare {set} --show {query} --out c{out}");
        place.picie(&words).succeeds();
        [out.to_string(), format!("c{out}")].map(|out| image::open(place.join(out)).unwrap())
    };
    let [first, second, third] = [0, 1, 2].map(|i| said(&names[i], &format!("{i}.png")));
    // The title of a row is what was asked.
    assert_eq!((&first[1], &first[1]), (&second[1], &third[1]));
    assert_eq!(first[0].width(), third[0].width());
    // In the order that was asked for, and one of three is the middle one.
    let words = format!("compare {set} --show {name} --show 0000 --out x.png");
    holds(&place.picie(&words).fails(), &["0000 is neither a file nor an image", "without"]);
    let words = format!("compare {set} --images 1 --out one.png");
    place.picie(&words).succeeds();
    assert_eq!(image::open(place.join("one.png")).unwrap(), first[1]);
    // A name that several have is asked about.
    std::fs::create_dir(place.join("two")).unwrap();
    for ending in ["png", "bmp"] {
        image::RgbImage::new(40, 40).save(place.join(format!("two/a.{ending}"))).unwrap();
    }
    let checkpoint = trained().join("epoch-02.safetensors");
    let words = format!("neighbors --checkpoint {} --data two --query a:1,1", checkpoint.display());
    holds(
        &place.picie(&words).fails(),
        &["a may be ", "a.bmp or ", "a.png; give more of its path"],
    );
}

/// The name of a validation scene, and a picture of its middle.
fn scene() -> String {
    let files = super::files(&scenes().join("images/val2017"));
    files[1].file_stem().unwrap().to_str().unwrap().to_string()
}

#[test]
fn a_query_finds_the_best_pixel_of_each_other_image() {
    let place = Place::new();
    let checkpoint = trained().join("checkpoint.safetensors");
    let words =
        format!("neighbors --checkpoint {} --data {}", checkpoint.display(), scenes().display());
    let name = scene();
    let (w, h) = width_and_height(&scenes().join(format!("images/val2017/{name}.jpg")));
    let query = format!("{name}:{},{}", w / 2, h / 2);
    let ran = place.picie(&format!("{words} --query {query} --top 20")).succeeds();
    // Of three images one is the query's own.
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[3]), (4, &*query, "sheet: neighbors.png"), "{ran:?}");
    assert!(lines[1..3].iter().all(|line| !line.contains(&name)), "{ran:?}");
    let score = |line: &str| line.split_whitespace().next().unwrap().parse::<f64>().unwrap();
    assert!(score(lines[1]) >= score(lines[2]) && score(lines[1]) <= 1.00001, "{ran:?}");
    assert_eq!(width_and_height(&place.join("neighbors.png")).0, 10 + 3 * 170);

    // Two queries, every pixel: as many as asked for, or as there are but one; the file is the same
    // image as its name.
    let file = scenes().join(format!("images/val2017/{name}.jpg"));
    let query = format!("{}:{},{}", file.display(), w / 2, h / 2);
    let more =
        format!("--query {query} --query {query} --top 63 --every-pixel --out all.png --limit 2");
    let ran = place.picie(&format!("{words} {more}")).succeeds();
    let found: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("  ")).collect();
    assert_eq!(found.len(), 2 * 63, "{ran:?}");
    assert_eq!(found[..63], found[63..]);
    assert!(found.iter().any(|line| line.contains(&name)), "{ran:?}");
    assert_eq!(width_and_height(&place.join("all.png")).0, 10 + 11 * 170);
}

#[test]
fn a_query_that_means_nothing_is_one_line() {
    let place = Place::new();
    let checkpoint = trained().join("checkpoint.safetensors");
    let words =
        format!("neighbors --checkpoint {} --data {}", checkpoint.display(), scenes().display());
    let name = scene();
    let (w, h) = width_and_height(&scenes().join(format!("images/val2017/{name}.jpg")));
    let outside = place.picie(&format!("{words} --query {name}:{w},0")).fails();
    let size = format!("outside of the image, which has {w} × {h} pixels");
    holds(&outside, &[&format!("--query {name}:{w},0"), &size]);
    let gone = place.picie(&format!("{words} --query gone.jpg:1,2")).fails();
    holds(&gone, &["gone.jpg is neither a file nor an image of the data set"]);
    // The network sees the middle of a wide image.
    image::RgbImage::new(90, 30).save(place.join("wide.png")).unwrap();
    let cut = place.picie(&format!("{words} --query wide.png:29,3")).fails();
    holds(&cut, &["--query wide.png:29,3", "90 × 30 pixels", "nearer to the middle"]);
    place.picie(&format!("{words} --query wide.png:30,3")).succeeds();
    for (flags, why) in [("--query a:1", "IMAGE:x,y"), ("--query a:1,2 --top 0", "1..=63")] {
        let ran = place.picie(&format!("{words} {flags}"));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        holds(&ran.err, &[why]);
    }
}
