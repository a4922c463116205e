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
    for name in ["a.jfif", "b.JPE", "c.pjpeg", "d.jif", "e.jpg2", "f.dib"] {
        touch(&dir.path().join(name));
    }
    let ids: Vec<String> = list(dir.path()).into_iter().map(|item| item.id).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "f"]);
}

#[test]
fn a_link_to_a_folder_is_followed_once() {
    let dir = tempfile::tempdir().unwrap();
    let far = tempfile::tempdir().unwrap();
    touch(&far.path().join("a.jpg"));
    std::os::unix::fs::symlink(far.path(), dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
    assert_eq!(list(dir.path()).len(), 1);
}
