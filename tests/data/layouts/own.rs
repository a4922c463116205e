//! Labels of people's own, and the data sets whose layouts are like theirs.

use std::path::Path;

use picie::data::{self, Classes, Dataset, EvalStore, Fit, IGNORE, Load, Square};

use super::{classes, layout, taxonomy};
use crate::data::store::load;
use crate::util::files::{gradient, write_label};

fn open(root: &Path, split: &str) -> Dataset {
    data::open(root, None, split, Classes::default(), &|_, _| ()).unwrap()
}

fn photo(root: &Path, name: &str) {
    std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
    gradient(8, 4).save(root.join(name)).unwrap();
}

/// A label map whose left half has the value `left`, the right half `right`.
fn map(root: &Path, name: &str, [left, right]: [u8; 2]) {
    let ids: Vec<u8> = (0..32).map(|i| if i % 8 < 4 { left } else { right }).collect();
    write_label(&root.join(name), 8, 4, &ids);
}

/// Which images there are, and the file name of each one's label map.
fn pairs(set: &Dataset) -> Vec<(&str, Option<&str>)> {
    let name =
        |path: &'_ Path| path.file_name().unwrap().to_str().unwrap().to_string().leak() as &str;
    set.items.iter().map(|item| (&*item.id, item.label.as_deref().map(name))).collect()
}

#[test]
fn label_maps_are_found_by_the_names_of_images() {
    for (images, maps) in [("images", "labels"), ("imgs", "masks"), ("images", "annotations")] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["a/1.jpg", "b/1.jpg", "b/2.png", "3.jpg", "c/4.jpg"] {
            photo(root, &format!("{images}/{name}"));
        }
        for name in ["a/1.png", "b/1_mask.png", "deep/er/2.png", "4_seg.png", "9.png"] {
            map(root, &format!("{maps}/{name}"), [0, 1]);
        }
        let set = open(root, "train");
        assert_eq!(set.layout.name, "images-labels");
        assert_eq!(
            pairs(&set),
            [
                ("3", None),
                ("a/1", Some("1.png")),
                ("b/1", Some("1_mask.png")),
                ("b/2", Some("2.png")),
                ("c/4", Some("4_seg.png"))
            ]
        );
        let said = set.account.line(root, 5).unwrap();
        assert!(said.contains("1 label maps without an image (name them as"), "{said}");
        assert!(said.contains("1 images without a label map"), "{said}");
        assert!(!set.is_split());
        assert_eq!(set.taxonomy.unwrap().classes, ["class 0", "class 1"]);
    }
}

#[test]
fn folders_of_both_are_splits() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["train/1", "validation/2"] {
        photo(root, &format!("images/{name}.jpg"));
        map(root, &format!("labels/{name}.png"), [3, 255]);
    }
    assert_eq!(pairs(&open(root, "train")), [("1", Some("1.png"))]);
    assert_eq!(pairs(&open(root, "val")), [("2", Some("2.png"))]);
    // Annotations that are no pictures make no data set with labels.
    let dir = tempfile::tempdir().unwrap();
    photo(dir.path(), "images/1.jpg");
    std::fs::create_dir(dir.path().join("annotations")).unwrap();
    std::fs::write(dir.path().join("annotations/instances.json"), "{}").unwrap();
    assert_eq!(open(dir.path(), "train").layout.name, "folder");
}

#[test]
fn classes_of_a_file_go_before_any_table() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    photo(root, "images/val2017/1.jpg");
    map(root, "annotations/val2017/1.png", [1, 2]);
    let read = |root: &Path| {
        let set = open(root, "val");
        let load = Load { square: Square::new(4, Fit::Crop), ..load(root, 1 << 20, true) };
        let store = EvalStore::load(&set, &load).map_err(|e| e.to_string())?;
        let mut out = vec![0; 16];
        store.gather_labels(&[0], &mut out).unwrap();
        Ok::<_, String>((set.taxonomy.unwrap().classes, out[..4].to_vec()))
    };
    std::fs::write(root.join("classes.txt"), "sky\nsea\n").unwrap();
    let unknown = read(root).unwrap_err();
    assert!(unknown.contains("1.png: the label map holds the value 2, which classes.txt does not"));
    assert!(unknown.contains("add it there"), "{unknown}");
    std::fs::write(root.join("classes.txt"), "sky\nsea\nsand\n").unwrap();
    assert_eq!(
        read(root).unwrap(),
        (vec!["sky".into(), "sea".into(), "sand".into()], vec![1, 1, 2, 2])
    );
    let json = r#"[{"id": 2, "name": "sand"}, {"id": 1, "ignore": true}]"#;
    std::fs::write(root.join("classes.json"), json).unwrap();
    assert_eq!(read(root).unwrap(), (vec!["sand".to_string()], vec![IGNORE, IGNORE, 0, 0]));
}

#[test]
fn label_maps_may_be_colours_or_palettes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    photo(root, "images/1.png");
    map(root, "labels/1.png", [0, 1]);
    let json = r##"[{"id": 5, "name": "a", "color": "#ff0000"}, {"id": 7, "name": "b", "color": [0, 0, 255]}]"##;
    std::fs::write(root.join("classes.json"), json).unwrap();
    let table = open(root, "train").taxonomy.unwrap();
    let path = root.join("labels/1.png");
    let read = || table.read(&path).map(|map| map.ids[3..5].to_vec()).map_err(|e| e.to_string());
    let coloured = image::RgbImage::from_fn(8, 4, |x, _| {
        image::Rgb(if x < 4 { [255, 0, 0] } else { [0, 0, 255] })
    });
    coloured.save(&path).unwrap();
    assert_eq!(read().unwrap(), [0, 1]);
    let palette = |colours: &[[u8; 3]], ids: [u16; 2]| {
        let ids: Vec<u16> = (0..32).map(|i| ids[usize::from(i % 8 >= 4)]).collect();
        picie::report::pictures::write_labels(&path, &ids, 8, 4, colours).unwrap();
    };
    // Colours of the file where the palette has these, else the indices are the values.
    palette(&[[0, 0, 255], [255, 0, 0]], [1, 0]);
    assert_eq!(read().unwrap(), [0, 1]);
    palette(&[[9; 3]; 8], [7, 5]);
    assert_eq!(read().unwrap(), [1, 0]);
    image::RgbImage::from_pixel(8, 4, image::Rgb([1, 2, 3])).save(&path).unwrap();
    assert!(read().unwrap_err().contains("the colour [1, 2, 3], which no class has"));
}

#[test]
fn voc_and_ade20k_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for id in ["2007_000032", "2007_000033", "2008_000001"] {
        photo(root, &format!("JPEGImages/{id}.jpg"));
    }
    map(root, "SegmentationClass/2007_000032.png", [15, 255]);
    let set = open(root, "train");
    assert_eq!((set.layout.name, set.items.len(), set.is_split()), ("voc", 3, false));
    let table = set.taxonomy.unwrap();
    assert_eq!((table.classes.len(), &*table.classes[15]), (21, "person"));
    assert_eq!(table.palette()[15], [192, 128, 128]);
    let lists = root.join("ImageSets/Segmentation");
    std::fs::create_dir_all(&lists).unwrap();
    std::fs::write(lists.join("train.txt"), "2007_000032\n").unwrap();
    std::fs::write(lists.join("val.txt"), "2008_000001\n").unwrap();
    assert_eq!(pairs(&open(root, "train")), [("2007_000032", Some("2007_000032.png"))]);
    assert_eq!(pairs(&open(root, "val")), [("2008_000001", None)]);

    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for split in ["training", "validation"] {
        photo(root, &format!("images/{split}/ADE_1.jpg"));
        map(root, &format!("annotations/{split}/ADE_1.png"), [0, 150]);
    }
    let set = open(root, "val");
    assert_eq!((set.layout.name, pairs(&set)), ("ade20k", vec![("ADE_1", Some("ADE_1.png"))]));
    let table = set.taxonomy.unwrap();
    assert_eq!(classes(&table, &[0, 1, 150, 255]), [IGNORE, 0, 149, IGNORE]);
    assert_eq!((&*table.classes[149], layout("ade20k").paper), ("flag", false));
}

#[test]
fn finer_tables_of_known_sets_have_the_published_order() {
    let coco = taxonomy("coco-stuff", 171);
    assert_eq!(
        classes(&coco, &[0, 10, 11, 12, 89, 90, 91, 181, 255]),
        [0, 10, IGNORE, 11, 79, IGNORE, 80, 170, IGNORE]
    );
    assert_eq!(
        (&*coco.classes[79], &*coco.classes[80], &*coco.classes[170]),
        ("toothbrush", "banner", "wood")
    );
    // Kinds of stuff belong to the coarse classes that their names say.
    let coarse = taxonomy("coco-stuff", 27);
    for (value, fine, of) in
        [(105u8, "clouds", "sky"), (123, "grass", "plant"), (154, "sea", "water")]
    {
        let (f, c) = (classes(&coco, &[value])[0], classes(&coarse, &[value])[0]);
        assert_eq!((&*coco.classes[usize::from(f)], &*coarse.classes[usize::from(c)]), (fine, of));
    }
    let city = taxonomy("cityscapes", 19);
    assert_eq!(classes(&city, &[7, 9, 11, 26, 33, 0]), [0, IGNORE, 2, 13, 18, IGNORE]);
    assert_eq!((&*city.classes[13], &*city.classes[18]), ("car", "bicycle"));
}
