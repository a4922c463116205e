use std::path::Path;

use super::layout;
use crate::util::files::touch;
use picie::data::{self, Classes, Item};

fn list(root: &Path) -> Vec<Item> {
    let folder = Some(layout("folder"));
    data::open(root, folder, "train", Classes::default(), &|_, _| ()).unwrap().items
}

#[test]
fn images_are_found_at_any_depth_in_a_fixed_order() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "z.PNG",
        "b/a.jpg",
        "b/c/d.webp",
        "b/readme.txt",
        ".cache/e.jpg",
        "b/.f.jpg",
        "a.tiff",
        "b/nojpg",
    ] {
        touch(&dir.path().join(name));
    }
    let items = list(dir.path());
    let ids: Vec<_> = items.iter().map(|i| i.id.as_str()).collect();
    assert_eq!(ids, ["a", "b/a", "b/c/d", "z"]);
    assert!(items.iter().all(|i| i.label.is_none()));
    assert!(items[1].image.ends_with("b/a.jpg"));
}

#[test]
fn whatever_people_call_a_jpeg_is_one() {
    let dir = tempfile::tempdir().unwrap();
    for name in
        ["a.jfif", "b.JPE", "c.pjpeg", "d.jif", "e.jpg2", "f.dib", "g.pjp", "h.jfi", "i.MPO"]
    {
        touch(&dir.path().join(name));
    }
    for name in ["j.jps", "k.jpg_large", "l.jpg-large"] {
        touch(&dir.path().join(name));
    }
    // An ending that nobody knows says nothing, and one of another kind enough.
    for name in ["m.jpg!d", "n.orig", "o.part", "p.thm", "q.nef"] {
        let photo = crate::util::files::gradient(9, 7);
        photo.save_with_format(dir.path().join(name), image::ImageFormat::Tiff).unwrap();
    }
    let ids: Vec<String> = list(dir.path()).into_iter().map(|item| item.id).collect();
    let want = ["a", "b", "c", "d", "f", "g", "h", "i", "j", "k", "l", "m", "n"];
    assert_eq!(ids, want);
}

#[test]
fn a_link_to_a_folder_is_followed_once() {
    let dir = tempfile::tempdir().unwrap();
    let far = tempfile::tempdir().unwrap();
    touch(&far.path().join("a.jpg"));
    std::os::unix::fs::symlink(far.path(), dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
    assert_eq!(list(dir.path()).len(), 1);
    // Its own name is the one that counts, whichever is met first.
    touch(&dir.path().join("own/b.jpg"));
    for link in ["a", "m", "z"] {
        std::os::unix::fs::symlink(dir.path().join("own"), dir.path().join(link)).unwrap();
    }
    let ids: Vec<String> = list(dir.path()).into_iter().map(|item| item.id).collect();
    assert_eq!(ids, ["link/a", "own/b"]);
}
