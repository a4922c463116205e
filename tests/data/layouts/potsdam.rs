use super::{fails, ids};
use crate::util::files::touch;
use picie::data::{self, Classes, IGNORE};

#[test]
fn without_lists_or_folders_every_split_is_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["imgs/2_10_0.png", "imgs/2_10_1.tif", "gt/2_10_1.png"] {
        touch(&dir.path().join(name));
    }
    let all = [("2_10_0".to_string(), false), ("2_10_1".to_string(), true)];
    assert_eq!(ids(dir.path(), "potsdam", "train"), all);
    assert_eq!(ids(dir.path(), "potsdam", "val"), all);
    let classes = Classes(3);
    let both = data::open(dir.path(), None, "train,val", classes, &|_, _| ()).unwrap();
    assert_eq!((both.layout.name, both.items.len()), ("potsdam", 2));
    assert!(fails(dir.path(), "potsdam", "night").contains("train, val, test"));
}

#[test]
fn lists_and_folders_make_splits() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["imgs/a.png", "imgs/b.jpg", "imgs/test/c.png", "gt/b.png", "gt/test/c.png"] {
        touch(&root.join(name));
    }
    std::fs::write(root.join("train.txt"), "b.jpg\r\n\na\n").unwrap();
    assert_eq!(ids(root, "potsdam", "train"), [("b".into(), true), ("a".into(), false)]);
    assert_eq!(ids(root, "potsdam", "test"), [("c".into(), true)]);
    touch(&root.join("imgs/lost.png"));
    let set = data::open(root, None, "train", Classes(3), &|_, _| ()).unwrap();
    let said = set.account.line(root, 2).unwrap();
    assert!(said.ends_with("left out: 2 patches on no list (add them to one)"), "{said}");
    let e = fails(root, "potsdam", "val");
    assert!(e.contains("no split \"val\"") && e.contains("train, test"), "{e}");
    std::fs::write(root.join("train.txt"), "d\n").unwrap();
    let e = fails(root, "potsdam", "train");
    assert!(e.contains("train.txt: no image \"d\""), "{e}");
}

#[test]
fn black_boundaries_are_not_scored() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["imgs/a.png", "gt/a.png"] {
        touch(&dir.path().join(name));
    }
    let label = dir.path().join("gt/a.png");
    let colours = [[255, 0, 0], [0, 0, 0], [0, 0, 255], [0, 0, 0]];
    let map = image::RgbImage::from_fn(4, 1, |x, _| image::Rgb(colours[x as usize]));
    map.save(&label).unwrap();
    for (classes, want) in [(6, [5, IGNORE, 1, IGNORE]), (3, [1, IGNORE, 1, IGNORE])] {
        let set = data::open(dir.path(), None, "train", Classes(classes), &|_, _| ()).unwrap();
        assert_eq!(set.taxonomy.unwrap().read(&label).unwrap().ids, want, "{classes} classes");
    }
}
