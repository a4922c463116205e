use super::{classes, fails, taxonomy};
use crate::util::files::{gradient, touch, write_label};
use picie::data::{EvalStore, Fit, IGNORE, ImageStore, Load, Square, open};

#[test]
fn splits_join_and_both_label_trees_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (split, city, n) in [("train", "bonn", 2), ("train", "aachen", 1), ("val", "ulm", 3)] {
        touch(&root.join(format!("leftImg8bit/{split}/{city}/{city}_{n}_leftImg8bit.png")));
    }
    touch(&root.join("leftImg8bit/train/bonn/thumbnail.png"));
    touch(&root.join("gtFine/train/bonn/bonn_2_gtFine_labelIds.png"));
    touch(&root.join("annotations/gtFine/val/ulm/ulm_3_gtFine_labelIds.png"));
    let all = |_, _| ();
    let data = open(root, None, "train,val", Default::default(), &all).unwrap();
    let found: Vec<_> = data.items.iter().map(|i| (i.id.as_str(), i.label.is_some())).collect();
    assert_eq!(found, [("aachen_1", false), ("bonn_2", true), ("ulm_3", true)]);
    assert_eq!(data.taxonomy.unwrap().name, "cityscapes 27");
}

/// PiCIE's splits and STEGO's on a tree as it is unpacked: train_extra has coarse labels alone,
/// test has empty ones.
#[test]
fn both_conventions_train_and_evaluate() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (split, city, tree, id) in [
        ("train", "bonn", "gtFine", 7),
        ("val", "ulm", "gtFine", 33),
        ("test", "bonn", "gtFine", 0),
        ("train_extra", "bern", "gtCoarse", 26),
    ] {
        let image = root.join(format!("leftImg8bit/{split}/{city}/{city}_0_leftImg8bit.png"));
        touch(&image);
        gradient(8, 4).save(&image).unwrap();
        write_label(
            &root.join(format!("{tree}/{split}/{city}/{city}_0_{tree}_labelIds.png")),
            8,
            4,
            &[id; 32],
        );
    }
    let set = |split: &str| open(root, None, split, Default::default(), &|_, _| ()).unwrap();
    let load = Load {
        square: Square::new(4, Fit::default()),
        budget: 1 << 20,
        cache: root,
        keep: None,
        exif: true,
        strict: false,
        on_progress: &|_, _| (),
    };
    for (train, images, val, classes) in
        [("test,train_extra", 2, "train,val", vec![0, 26]), ("train", 1, "val", vec![26])]
    {
        assert_eq!(ImageStore::load(&set(train), &load).unwrap().len(), images, "{train}");
        let store = EvalStore::load(&set(val), &load).unwrap();
        let mut seen = vec![0; 16 * classes.len()];
        store.gather_labels(&(0..classes.len() as u32).collect::<Vec<_>>(), &mut seen).unwrap();
        assert!(
            seen.chunks(16).zip(&classes).all(|(seen, class)| seen == [*class; 16]),
            "{val}: {seen:?}"
        );
    }
    // Labels of test count for nothing, train_extra has none that are fine: it is left out.
    let store = EvalStore::load(&set("test,train_extra"), &load).unwrap();
    let mut seen = vec![0; 16];
    store.gather_labels(&[0], &mut seen).unwrap();
    assert_eq!((store.images.len(), seen), (1, vec![IGNORE; 16]));
    assert_eq!(store.occurring().unwrap(), 0);
}

#[test]
fn a_split_that_is_not_there_says_so() {
    let dir = tempfile::tempdir().unwrap();
    touch(&dir.path().join("leftImg8bit/train/bonn/thumbnail.png"));
    let fails = |split| fails(dir.path(), "cityscapes", split);
    assert!(
        fails("night").contains("no split \"night\"") && fails("night").contains("train_extra")
    );
    assert!(fails("val").contains("leftImg8bit/val: no such folder"));
    assert!(fails("train").contains("no *_leftImg8bit.png"));
}

#[test]
fn cityscapes_ids_become_classes() {
    let t = taxonomy("cityscapes", 27);
    assert_eq!(classes(&t, &[0, 6, 7, 23, 33, 255]), [IGNORE, IGNORE, 0, 16, 26, IGNORE]);
    assert_eq!((t.classes.len(), &*t.classes[16], &*t.classes[26]), (27, "sky", "bicycle"));
}
