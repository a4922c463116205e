//! How data sets lie on disk: one module for each layout.

mod cityscapes;
mod coco_stuff;
mod folder;
mod own;
mod potsdam;

use std::path::Path;

use clap::ValueEnum;
use picie::data::{self, Classes, DataLayout, IGNORE, LAYOUTS, Taxonomy};

use crate::util::files::touch;

/// The layout that `--dataset` calls `name`.
pub fn layout(name: &str) -> &'static DataLayout {
    DataLayout::named(name).unwrap()
}

/// The table of `--classes` `number` of a layout.
fn taxonomy(name: &str, number: usize) -> Taxonomy {
    layout(name).taxonomy(Path::new("gone"), Classes(number)).unwrap().unwrap()
}

/// The classes that label map values become.
fn classes(t: &Taxonomy, ids: &[u8]) -> Vec<u8> {
    let mut ids = ids.to_vec();
    t.classify(Path::new("a.png"), &mut ids).unwrap();
    ids
}

/// The items of a split, and whether each has a label.
fn ids(root: &Path, name: &str, split: &str) -> Vec<(String, bool)> {
    let classes = layout(name).any_classes();
    let set = data::open(root, Some(layout(name)), split, classes, &|_, _| ()).unwrap();
    set.items.into_iter().map(|i| (i.id, i.label.is_some())).collect()
}

/// The error of a split that cannot be listed.
fn fails(root: &Path, name: &str, split: &str) -> String {
    let classes = layout(name).any_classes();
    data::open(root, Some(layout(name)), split, classes, &|_, _| ()).unwrap_err().to_string()
}

#[test]
fn kinds_and_classes_have_the_names_of_the_command_line() {
    for name in ["coco-stuff", "cityscapes", "folder", "potsdam"] {
        assert_eq!(<&DataLayout>::from_str(name, false), Ok(layout(name)));
    }
    for (flag, classes) in [("15", Classes(15)), ("3", Classes(3)), ("27", Classes::default())] {
        assert_eq!(Classes::from_str(flag, false), Ok(classes));
    }
    assert!(<&DataLayout>::from_str("imagenet", false).is_err());
    assert!(Classes::from_str("5", false).is_err());
}

/// Settings of a run name them the same way; older ones had a word before the number of classes.
#[test]
fn files_name_layouts_and_classes_as_the_command_line_does() {
    for layout in LAYOUTS {
        let text = serde_json::to_string(layout).unwrap();
        assert_eq!(text, format!("{:?}", layout.name));
        assert_eq!(serde_json::from_str::<&DataLayout>(&text).unwrap(), *layout);
    }
    assert!(serde_json::from_str::<&DataLayout>("\"imagenet\"").is_err());
    assert_eq!(serde_json::to_string(&Classes(15)).unwrap(), "\"15\"");
    for (text, classes) in [("15", 15), ("all27", 27), ("coarse3", 3)] {
        let read: Classes = serde_json::from_str(&format!("{text:?}")).unwrap();
        assert_eq!(read, Classes(classes));
    }
    assert!(serde_json::from_str::<Classes>("\"many\"").is_err());
}

#[test]
fn the_layout_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let found = |name: &str| {
        let root = dir.path().join(name);
        data::open(&root, None, "val", Classes::default(), &|_, _| ()).unwrap().layout.name
    };
    touch(&dir.path().join("coco/images/val2017/b.jpg"));
    touch(&dir.path().join("city/leftImg8bit/val/bonn/bonn_0_leftImg8bit.png"));
    touch(&dir.path().join("mine/deep/down/a.JPEG"));
    assert_eq!(found("coco"), "coco-stuff");
    assert_eq!(found("city"), "cityscapes");
    assert_eq!(found("mine"), "folder");
}

#[test]
fn a_missing_or_empty_or_unfit_folder_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let open = |root: &Path, name: Option<&str>, split, classes| {
        let layout = name.map(layout);
        data::open(root, layout, split, classes, &|_, _| ()).unwrap_err().to_string()
    };
    let gone = open(&dir.path().join("gone"), None, "train", Classes::default());
    assert!(gone.contains("gone: no such file or directory; check the path"), "{gone}");
    let empty = open(dir.path(), None, "train", Classes::default());
    assert!(
        empty.contains("no image in this folder") && empty.contains("images/train2017"),
        "{empty}"
    );
    let unfit = open(dir.path(), Some("coco-stuff"), "train", Classes::default());
    assert!(unfit.contains("images/train2017: no such folder"), "{unfit}");
    let split = open(dir.path(), Some("cityscapes"), "train,night", Classes::default());
    assert!(split.contains("there is no split \"night\" here; choose among train,"), "{split}");
    let classes = open(dir.path(), Some("folder"), "train", Classes(15));
    assert!(classes.contains("15 classes") && classes.contains("use --classes 27"), "{classes}");
    for e in [gone, empty, unfit, split, classes] {
        assert!(!e.contains('\n'));
    }
}

#[test]
fn classes_that_a_data_set_does_not_have_are_refused() {
    for (name, has) in [
        ("coco-stuff", [true, true, true, false, true]),
        ("cityscapes", [true, false, false, false, false]),
        ("potsdam", [false, false, false, true, true]),
        ("folder", [true, false, false, false, false]),
    ] {
        for (classes, has) in [27, 15, 12, 6, 3].map(Classes).into_iter().zip(has) {
            assert_eq!(
                layout(name).taxonomy(Path::new("gone"), classes).is_ok(),
                has,
                "{name} {classes}"
            );
        }
    }
    let e =
        layout("potsdam").taxonomy(Path::new("gone"), Classes::default()).unwrap_err().to_string();
    assert!(
        e.contains("Potsdam has no table of 27 classes; use --classes 3 or --classes 6"),
        "{e}"
    );
    let all: Vec<String> = Classes::value_variants().iter().map(Classes::to_string).collect();
    assert_eq!(all, ["171", "150", "27", "21", "19", "15", "12", "6", "3"]);
    for classes in Classes::value_variants() {
        let name = classes.to_possible_value().unwrap();
        assert_eq!(name.get_name(), classes.to_string());
    }
}

#[test]
fn an_unknown_id_names_the_file_and_the_value() {
    for (name, number, bad) in [("coco-stuff", 15, 182), ("cityscapes", 27, 34)] {
        let t = taxonomy(name, number);
        let e = t.classify(Path::new("x/b.png"), &mut [255, bad]).unwrap_err().to_string();
        assert!(
            e.contains("x/b.png")
                && e.contains(&format!("value {bad}"))
                && e.contains("check --dataset"),
            "{e}"
        );
    }
}

#[test]
fn three_classes_are_in_iics_order() {
    let three = taxonomy("coco-stuff", 3);
    // sky-other, clouds, grass, tree, road, sea, person, unlabelled
    let ids = [156, 105, 123, 168, 148, 154, 0, 255];
    assert_eq!(classes(&three, &ids), [0, 0, 1, 1, 2, IGNORE, IGNORE, IGNORE]);
    assert_eq!(three.classes, ["sky", "plant", "ground"]);
    assert!(three.parts.is_empty());
    // Potsdam: road, building, low vegetation, tree, car, clutter.
    let ids = [0, 1, 2, 3, 4, 5, 255];
    assert_eq!(classes(&taxonomy("potsdam", 3), &ids), [0, 1, 2, 2, 0, 1, IGNORE]);
    assert_eq!(classes(&taxonomy("potsdam", 6), &ids), ids);
}
