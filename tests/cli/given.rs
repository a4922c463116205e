//! What a command is given stays as it was: nothing is written over it, by whatever name.

use super::{Place, TINY, files, holds, scenes, trained};

/// Fails with each of `parts`, and leaves every file of the place as it was.
#[track_caller]
fn refuses(place: &Place, words: &str, parts: &[&str]) {
    let all = || {
        let read = |name: std::path::PathBuf| (std::fs::read(place.join(&name)).unwrap(), name);
        files(&place.path()).into_iter().map(read).collect::<Vec<_>>()
    };
    let before = all();
    holds(&place.picie(words).fails(), parts);
    assert!(all() == before, "{words} changes something");
}

#[test]
fn pictures_and_reports_are_not_written_over_what_is_read() {
    let place = Place::new();
    let data = place.scenes("data");
    let image = data.join("images/val2017/000000000001.jpg");
    std::fs::copy(trained().join("epoch-02.safetensors"), place.join("net.png")).unwrap();
    std::fs::hard_link(&image, place.join("photo.png")).unwrap();
    std::os::unix::fs::symlink(&image, place.join("link.png")).unwrap();
    let label = "data/annotations/val2017/000000000002.png";
    let query = format!("neighbors --query {}:3,3", image.display());
    for command in ["compare", &query] {
        let words = format!("{command} --checkpoint net.png --data data --out");
        for out in ["net.png", "photo.png", "link.png"] {
            let over = format!("the output {out} of --out would be written over ");
            refuses(&place, &format!("{words} {out}"), &[&over, "; name another file"]);
        }
        let jpeg = "--out sheet.jpg: a PNG is written; call it sheet.png";
        refuses(&place, &format!("{words} sheet.jpg"), &[jpeg]);
        let gone = "none: no such file or directory; check the path";
        refuses(&place, &format!("{words} none/sheet.png"), &[gone]);
    }
    let words = format!("compare --checkpoint net.png --data data --out {label}");
    refuses(&place, &words, &["would be written over"]);
    // Images beyond the limit are given, and so is what nobody named.
    image::RgbImage::new(9, 9).save(place.join("drawn.png")).unwrap();
    let beyond = "data/annotations/val2017/000000000003.png";
    for (more, why) in [
        (format!("--limit 1 --out {beyond}"), "would be written over"),
        ("--out drawn.png".into(), "drawn.png: there is an image that picie did not draw"),
        ("--out data".into(), "data: is a directory; name a file, not a folder"),
        (format!("--out {}", "x".repeat(300)), "file name too long; use a shorter name"),
    ] {
        let words = format!("compare --checkpoint net.png --data data {more}");
        refuses(&place, &words, &[why]);
    }

    std::fs::write(place.join("old.json"), "{}").unwrap();
    for (words, why) in [
        ("--csv a.csv --trace ./a.csv", "--trace ./a.csv: JSON is written; call it ./a.json"),
        ("--csv a --trace ./a", "--csv and --trace would both be written to a; rename one"),
        (
            "--report page.pdf",
            "--report page.pdf: an HTML page, or SVG, is written; call it page.html",
        ),
        ("--csv none/a.csv", "none: no such file or directory"),
        ("--csv data", "data: is a directory; name a file, not a folder"),
    ] {
        refuses(&place, &format!("bench --images 1 {words}"), &[why]);
    }
    let over = "of --trace would be written over old.json";
    refuses(&place, "bench --against old.json --trace old.json", &[over]);
}

#[test]
fn a_run_has_a_folder_of_its_own() {
    let place = Place::new();
    let data = place.scenes("data");
    std::fs::create_dir(place.join("photos")).unwrap();
    let image = data.join("images/val2017/000000000001.jpg");
    std::fs::copy(&image, place.join("photos/a.jpg")).unwrap();
    std::fs::create_dir_all(place.join("mine/pictures")).unwrap();
    std::fs::copy(&image, place.join("mine/pictures/a.jpg")).unwrap();
    std::fs::create_dir(place.join("weights")).unwrap();
    let weights = trained().join("epoch-02.safetensors");
    std::fs::copy(weights, place.join("weights/checkpoint.safetensors")).unwrap();
    std::fs::create_dir(place.join("photos/2024")).unwrap();
    std::fs::copy(&image, place.join("photos/2024/b.jpg")).unwrap();
    for (words, what) in [
        (
            "--data photos --run photos/2024",
            "photos/2024: this folder lies among the images and holds something, which would not be \
             learned from",
        ),
        ("--data photos --run photos", "photos: the images lie where this run would write"),
        ("--data mine/pictures --run mine", "mine: the images lie where this run would write"),
        (
            "--data data --weights weights/checkpoint.safetensors --run weights",
            "weights: the weights to start from lie where this run would write",
        ),
    ] {
        refuses(&place, &format!("train {TINY} {words}"), &[what, "choose another --run"]);
    }
    std::fs::remove_dir_all(place.join("photos/2024")).unwrap();
    // A run below its images is no image.
    let scenes = scenes().join("images/train2017");
    for file in files(&scenes) {
        std::fs::copy(scenes.join(&file), place.join("photos").join(&file)).unwrap();
    }
    let words = format!("train --json --recipe demo {TINY} --data photos --run photos/run");
    for run in 1..=2 {
        let ran = place.picie(&format!("{words}{run}")).succeeds();
        holds(&ran.err, &[&format!("photos: 7 images; passed over: {run} written by picie")]);
        let account = format!("\"passed_over\":{{\"written by picie\":{run}}}");
        holds(&ran.out, &["\"data\":{\"left_out\":{},", &account]);
    }
}
