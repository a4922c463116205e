//! Folders and patterns.

use super::photo;
use crate::cli::{Place, files, holds, trained};

fn segment(place: &Place, words: &str) -> crate::cli::Ran {
    let checkpoint = trained().join("epoch-02.safetensors");
    place.picie(&format!(
        "segment --size 32 --checkpoint {} --out out {words}",
        checkpoint.display()
    ))
}

#[test]
fn folders_keep_their_structure_and_leave_out_what_is_no_photo() {
    let place = Place::new();
    std::fs::create_dir_all(place.join("in/sub/deep")).unwrap();
    for name in ["in/a.png", "in/sub/a.jpg", "in/sub/deep/b.webp", "in/sub/deep/b.png"] {
        photo(50, 40).save(place.join(name)).unwrap();
    }
    std::fs::write(place.join("in/clip.mp4"), "film").unwrap();
    std::fs::write(place.join("in/.hidden.png"), "").unwrap();
    let ran = segment(&place, "in in/a.png").succeeds();
    holds(&ran.err, &["in: 4 images; left out: 1 MP4 (write frames as JPEG or PNG)"]);
    // Photos of one name have their endings, too.
    let names = ["a", "sub/a", "sub/deep/b.png", "sub/deep/b.webp"];
    let want = names
        .iter()
        .flat_map(|name| ["labels", "overlay"].map(|what| format!("{name}-{what}.png")));
    for file in want.chain(["segments.json".into(), "sheet.png".into()]) {
        assert!(place.join("out").join(&file).is_file(), "{file}");
    }
    assert_eq!(ran.out.lines().count(), 5, "{ran:?}");
}

#[test]
fn patterns_are_matched_where_no_shell_did() {
    let place = Place::new();
    std::fs::create_dir_all(place.join("in/sub")).unwrap();
    for name in ["in/a.png", "in/sub/b.png", "in/c.bmp", "in/d[1].png"] {
        photo(40, 40).save(place.join(name)).unwrap();
    }
    let ran = segment(&place, "in/**/*.png in/[");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    holds(&ran.err, &["in/[: not a pattern: ", "1 of 4 photos were left out"]);
    assert_eq!(files(&place.join("out")).len(), 8);
    let ran = segment(&place, "in/*.tif");
    holds(&ran.err, &["in/*.tif: no file matches this pattern", "1 of 1 photos were left out"]);
    // A file is a file, whatever it is called.
    segment(&place, "in/d[1].png").succeeds();
}
