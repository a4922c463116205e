//! Load: time and memory of many photos, of large folders, and of one large photo.

use std::os::unix::fs::symlink;

use super::measured;
use crate::cli::{Place, scenes, trained};
use crate::util::binary;

/// Measures `of` so many files and twice as many: the time is at most three times as long, so no
/// step is quadratic, and memory is what it was but for names.
fn grows_evenly(what: &str, files: usize, mut of: impl FnMut(usize) -> (f64, u64)) {
    let ((once, less), (twice, more)) = (of(files), of(2 * files));
    let rate = 2.0 * files as f64 / twice;
    println!("{what}: {files} in {once:.1} s and {} MiB, ", less >> 10);
    println!("{} in {twice:.1} s and {} MiB, {rate:.0} a second", 2 * files, more >> 10);
    assert!(twice < 3.0 * once, "{once} s for {files}, {twice} s for twice as many");
    let names = 2 * files as u64;
    assert!(more <= less + names + (16 << 10), "{less} KiB, and {more} KiB for twice as many");
}

/// The number of files of a test, of which the environment may say a part.
fn files(all: usize) -> usize {
    let part = std::env::var("LOAD_PART").map_or(1, |text| text.parse().unwrap());
    all / part
}

#[test]
#[ignore = "minutes; by hand"]
fn many_photos_are_segmented_at_one_rate() {
    let photo = scenes().join("images/val2017/000000000001.jpg");
    let checkpoint = trained().join("epoch-02.safetensors");
    grows_evenly("photos segmented", files(5_000), |photos| {
        let place = Place::new();
        let names: Vec<String> = (0..photos).map(|i| format!("{i:06}.jpg")).collect();
        names.iter().for_each(|name| symlink(&photo, place.join(name)).unwrap());
        let words = format!("segment --out out --checkpoint {}", checkpoint.display());
        let mut command = place.command(binary(), &words);
        command.args(names);
        measured(command)
    });
}

#[test]
#[ignore = "minutes; by hand"]
fn large_folders_are_looked_through_at_one_rate() {
    let photo = scenes().join("images/val2017/000000000001.jpg");
    let place = Place::new();
    std::fs::create_dir(place.join("photos")).unwrap();
    let words = "train --data photos --recipe picie --levels 2 --weights none --size 32 \
                 --stored 64 --batch 4 --clusters 4 --limit 64 --plan";
    let mut made = 0..0;
    grows_evenly("files of a folder", files(100_000), |files| {
        made = made.end..files;
        let name = |i| place.join(format!("photos/{i:06}.jpg"));
        made.clone().for_each(|i| symlink(&photo, name(i)).unwrap());
        measured(place.command(binary(), words))
    });
}

/// README says what a large photo takes.
#[test]
fn a_large_photo_takes_what_the_readme_says() {
    let place = Place::new();
    let (width, height) = (6000, 6000);
    let photo =
        |width, height| image::RgbImage::from_fn(width, height, |x, _| image::Rgb([x as u8; 3]));
    photo(width, height).save(place.join("large.jpg")).unwrap();
    photo(64, 64).save(place.join("small.jpg")).unwrap();
    let most = |photo: &str| {
        let checkpoint = trained().join("epoch-02.safetensors");
        let words = format!("segment --out out --checkpoint {} {photo}", checkpoint.display());
        measured(place.command(binary(), &words)).1 << 10
    };
    let (small, large) = (most("small.jpg"), most("large.jpg"));
    let each = (large - small) as f64 / f64::from(width * height);
    println!("{each:.1} bytes a pixel");
    assert!((6.0..14.5).contains(&each), "{each} bytes a pixel");
}
