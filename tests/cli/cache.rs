//! Decoded images are kept from one start to the next: who uses them, and how to be rid of them.

use std::path::PathBuf;

use super::{Place, Ran, TINY, holds};
use crate::faults::{faulty, shim};

const PHOTOS: usize = 7;
const PLAN: &str = "train --data photos --recipe picie --size 32 --stored 64 --plan";

/// A data set whose training images, of 35 MB together, are large enough to be kept. One validation
/// image has labels.
fn photos(place: &Place) {
    for folder in ["images/train2017", "images/val2017", "annotations/val2017"] {
        std::fs::create_dir_all(place.join("photos").join(folder)).unwrap();
    }
    for i in 0..PHOTOS as u32 {
        let colour =
            |x: u32, y: u32| image::Rgb([x >> 3, y >> 3, (x + y) << i & 255].map(|v| v as u8));
        image::RgbImage::from_fn(1400, 1200, colour)
            .save(place.join(format!("photos/images/train2017/{i}.bmp")))
            .unwrap();
    }
    std::fs::copy(
        place.join("photos/images/train2017/0.bmp"),
        place.join("photos/images/val2017/0.bmp"),
    )
    .unwrap();
    // Sky above the sea.
    let labels = image::GrayImage::from_fn(1400, 1200, |_, y| {
        image::Luma([if y < 600 { 156 } else { 154 }])
    });
    labels.save(place.join("photos/annotations/val2017/0.png")).unwrap();
}

fn sets(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.cache().join("picie/sets")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[track_caller]
fn decodes(ran: Ran) {
    let err = ran.succeeds().err;
    assert!(!err.contains("from the cache"), "{err}");
}

#[track_caller]
fn reuses(ran: Ran) -> String {
    let err = ran.succeeds().err;
    holds(&err, &["images: 7 from the cache ("]);
    err
}

#[test]
fn images_are_decoded_once_for_all_commands_until_they_are_cleared() {
    let place = Place::new();
    photos(&place);
    decodes(place.picie(&format!("{PLAN} --no-cache")));
    assert_eq!(sets(&place).len(), 0);
    let first = place.picie(PLAN).succeeds();
    let kept = sets(&place);
    assert_eq!(kept.len(), 1);
    holds(
        &first.err,
        &["images: 7 kept for the next start, 0 MiB (", &kept[0].display().to_string()],
    );
    assert!(reuses(place.picie(PLAN)).contains(&kept[0].display().to_string()));
    decodes(place.picie(&format!("{PLAN} --no-cache")));

    // A run, its continuation, the runs of a sweep and a measurement all see the same images.
    let (data, one) = ("--data photos --recipe picie", TINY.replace("--epochs 2", "--epochs 1"));
    reuses(place.picie(&format!("train {data} --run run {one}")));
    reuses(place.picie("train --resume --run run"));
    decodes(place.picie("train --resume --run run --no-cache"));
    let sweep = place.picie(&format!("sweep lr --values 1e-4,1e-3 {data} {one}"));
    assert_eq!(sweep.err.matches("images: 7 from the cache (").count(), 2, "{sweep:?}");
    let shape = "--size 32 --stored 64 --batch 2 --batch-cluster 4 --clusters 9";
    reuses(place.picie(&format!("bench --data photos --images 7 --epochs 1 --warm-up 0 {shape}")));
    // A network without labels is looked at on all images, at the size of evaluation.
    let eval = "eval --checkpoint run/checkpoint.safetensors --data photos --split train";
    decodes(place.picie(eval));
    reuses(place.picie(eval));
    decodes(place.picie(&format!("{eval} --no-cache")));

    std::fs::write(place.cache().join("picie/cudnn-engines.json"), vec![b' '; 3 << 20]).unwrap();
    std::fs::create_dir(place.cache().join("picie/scenes-9")).unwrap();
    std::fs::write(place.cache().join("picie/scenes-9/a.jpg"), vec![1; 2 << 20]).unwrap();
    let listed = place.picie("cache").succeeds().out;
    holds(
        &listed,
        &["7 images of 64² pixels", "7 images of 32² pixels", "photos (train), last used"],
    );
    holds(&listed, &["3.0 MiB  ", "cudnn-engines.json", "2.0 MiB  ", "scenes-9", " MiB  in "]);
    holds(&place.picie("cache --clear").succeeds().out, &["3.", " MiB freed in "]);
    assert_eq!(sets(&place).len(), 0);
    let listed = place.picie("cache").succeeds().out;
    assert!(listed.contains("scenes-9") && listed.lines().count() == 2, "{listed}");
    decodes(place.picie(PLAN));
}

#[test]
fn a_killed_reader_leaves_nothing_that_is_taken_for_a_set() {
    let place = Place::new();
    photos(&place);
    let Some(shim) = shim() else { return };
    // The set is 86 kB, and each of its images a write, after two calls that make folder and file:
    // the third begins, and the process is gone.
    let cache = place.cache();
    std::fs::create_dir_all(cache.join("picie/sets")).unwrap();
    let fault =
        [("FAULT_BELOW", cache.to_str().unwrap()), ("FAULT_KIND", "cut"), ("FAULT_AT", "5")];
    let killed = faulty(&place, shim, &fault, PLAN);
    assert_eq!(killed.code, Some(137), "{killed:?}");
    let half = sets(&place)[0].metadata().unwrap().len();
    assert!((1..86_016).contains(&half), "{half} bytes");
    assert_eq!(sets(&place).len(), 1);
    let listed = place.picie("cache").succeeds().out;
    assert!(!listed.contains("images of"), "{listed}");
    decodes(place.picie(PLAN));
    assert_eq!(sets(&place).len(), 1);
    reuses(place.picie(PLAN));
}

/// No test can fill a disk everywhere; a limit on the size of files makes writes fail in the same
/// place.
#[test]
fn a_disk_that_takes_no_more_is_no_reason_to_stop() {
    let place = Place::new();
    photos(&place);
    // 51 or 102 kB, as the shell counts; the images are 1.4 MB.
    let ran = place
        .shell("trap '' XFSZ; ulimit -f 100", &PLAN.replace("--stored 64", "--stored 256"))
        .succeeds();
    holds(&ran.err, &["the decoded images are not kept for the next start: ", "file too large"]);
    assert_eq!(sets(&place).len(), 0);
}
