use std::path::Path;

use super::{classes, fails, ids, taxonomy};
use crate::util::files::{touch, write_label};
use picie::data::IGNORE;

fn label(root: &Path, id: &str, width: usize, height: usize, stuff: usize) {
    let map: Vec<u8> = (0..width * height).map(|i| if i < stuff { 181 } else { 90 }).collect();
    write_label(&root.join(format!("annotations/train2017/{id}.png")), width, height, &map);
}

#[test]
fn the_curated_list_decides_and_keeps_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for id in ["000000000001", "000000000002", "000000000003"] {
        touch(&root.join(format!("images/val2017/{id}.jpg")));
    }
    touch(&root.join("annotations/val2017/000000000001.png"));
    let list_file = root.join("curated/val2017").join("Coco164kFull_Stuff_Coarse_7.txt");
    touch(&list_file);
    std::fs::write(&list_file, "000000000003\r\n000000000001\n\n").unwrap();
    assert_eq!(
        ids(root, "coco-stuff", "val"),
        [("000000000003".into(), false), ("000000000001".into(), true)]
    );
    let set = picie::data::open(root, None, "val", Default::default(), &|_, _| ()).unwrap();
    let said = "left out: 1 images that are not on the curated list (--dataset folder takes all)";
    assert!(set.account.line(root, 2).unwrap().ends_with(said));
    std::fs::write(&list_file, "\n").unwrap();
    assert!(fails(root, "coco-stuff", "val").contains("the list is empty"));
}

#[test]
fn without_a_list_the_curation_rule_is_applied_at_its_edges() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let area = 360 * 361;
    label(root, "a", 361, 360, area * 3 / 4);
    label(root, "b", 361, 360, area * 3 / 4 - 1);
    label(root, "c", 360, 359, 360 * 359);
    label(root, "d", 359, 360, 360 * 359);
    for id in ["a", "b", "c", "d", "e"] {
        touch(&root.join(format!("images/train2017/{id}.jpg")));
    }
    assert_eq!(ids(root, "coco-stuff", "train"), [("a".into(), true)]);
    // None passes: all images, labelled or not.
    std::fs::remove_file(root.join("annotations/train2017/a.png")).unwrap();
    assert_eq!(ids(root, "coco-stuff", "train").len(), 5);
    // No annotations: all images.
    std::fs::remove_dir_all(root.join("annotations")).unwrap();
    assert_eq!(ids(root, "coco-stuff", "train").iter().filter(|i| !i.1).count(), 5);
}

#[test]
fn a_folder_without_images_says_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    for id in ["a", "b", "c"] {
        touch(&dir.path().join(format!("images/train2017/{id}.HEIC")));
    }
    let said = fails(dir.path(), "coco-stuff", "train");
    let want = "no image in this folder (left out: 3 HEIC (convert to JPEG or PNG)); unpack";
    assert!(said.contains(want), "{said}");
}

#[test]
fn a_label_map_that_cannot_be_read_stays_in_to_be_reported() {
    let dir = tempfile::tempdir().unwrap();
    touch(&dir.path().join("images/train2017/a.jpg"));
    touch(&dir.path().join("annotations/train2017/a.png"));
    assert_eq!(ids(dir.path(), "coco-stuff", "train"), [("a".into(), true)]);
}

#[test]
fn coco_ids_become_classes() {
    // person, car, sheep, grass, sky-other, sea, unlabelled
    let ids = [0, 2, 19, 123, 156, 154, 255];
    let all = taxonomy("coco-stuff", 27);
    assert_eq!(classes(&all, &ids), [9, 11, 7, 22, 23, 26, IGNORE]);
    assert_eq!(all.classes[22], "plant");
    assert_eq!(all.parts, [("things", 0..12), ("stuff", 12..27)]);
    let stuff = taxonomy("coco-stuff", 15);
    assert_eq!(classes(&stuff, &ids), [IGNORE, IGNORE, IGNORE, 10, 11, 14, IGNORE]);
    assert_eq!((stuff.classes.len(), &*stuff.classes[11]), (15, "sky"));
    let things = taxonomy("coco-stuff", 12);
    assert_eq!(classes(&things, &ids), [9, 11, 7, IGNORE, IGNORE, IGNORE, IGNORE]);
    assert_eq!((things.classes.len(), &*things.classes[7]), (12, "animal"));
}
