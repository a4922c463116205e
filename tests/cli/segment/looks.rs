//! Several looks at a photo, averaged.

use super::{label_map, photo};
use crate::cli::{Place, holds, trained};

#[test]
fn scores_are_averaged_over_mirror_images_and_scales() {
    let place = Place::new();
    let wide = photo(97, 50);
    wide.save(place.join("a.png")).unwrap();
    wide.fliph().save(place.join("m.png")).unwrap();
    let checkpoint = trained().join("epoch-02.safetensors");
    let labels = |out: &str, words: &str, photo: &str| {
        let size = if words.contains("--size") { "" } else { "--size 64" };
        let words = format!("{words} {size} --refine=off {photo}.png");
        place
            .picie(&format!("segment --checkpoint {} --out {out} {words}", checkpoint.display()))
            .succeeds();
        label_map(&place.join(format!("{out}/{photo}-labels.png"))).1
    };
    let plain = labels("plain", "", "a");
    // One look on the host is that of the engine, but for sums of another order.
    let same = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    let host = labels("host", "--scores", "a");
    assert!(same(&plain, &host) * 1000 >= 999 * plain.len(), "{}", same(&plain, &host));
    // With the mirror image, a mirrored photo has the mirrored labels; without, it has not.
    let mirrored = |labels: &[u8]| -> Vec<u8> {
        labels.chunks(97).flat_map(|row| row.iter().rev().copied()).collect()
    };
    let (flip, other) = (labels("flip", "--flip", "a"), labels("other", "--flip", "m"));
    assert!(same(&mirrored(&flip), &other) * 1000 >= 999 * other.len());
    assert!(same(&mirrored(&plain), &labels("plain", "", "m")) * 1000 < 999 * other.len());
    let scales = labels("scales", "--scales 1,1.5", "a");
    assert!(scales != plain && scales != labels("large", "--size 96", "a"));
    let ran = place.picie("segment --checkpoint x --out y --scales 1,0 a.png");
    assert_eq!(ran.code, Some(2));
    holds(&ran.err, &["use numbers from 0.1 to 10"]);
}
