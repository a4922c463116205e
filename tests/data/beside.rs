//! What lies beside photos in folders as people have them, and what becomes of it.

use std::path::Path;

use image::{DynamicImage, ImageBuffer, Luma, Rgb, RgbImage};
use picie::data::{self, Account, Classes};
use picie::report::pictures::write_rgb;

use super::layouts::layout;
use crate::util::files::{gradient, touch, write_label};

/// The names of the images that are used of a folder, and its account.
fn listed(root: &Path) -> (Vec<String>, Account) {
    let folder = Some(layout("folder"));
    let set = data::open(root, folder, "train", Classes::default(), &|_, _| ()).unwrap();
    (set.items.into_iter().map(|item| item.id).collect(), set.account)
}

/// The remedy for what is no label map.
const ALL: &str = "--dataset every-image takes them, too";

/// The number of images that a layout uses of a folder, and what it says.
fn used(root: &Path, name: &str) -> (usize, String) {
    let set =
        data::open(root, Some(layout(name)), "train", Classes::default(), &|_, _| ()).unwrap();
    let said = set.account.line(root, set.items.len()).unwrap_or_default();
    (set.items.len(), said)
}

fn line(root: &Path) -> String {
    let (used, account) = listed(root);
    account.line(root, used.len()).unwrap_or_default().replace(&*root.to_string_lossy(), "ROOT")
}

fn photo(root: &Path, name: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    gradient(40, 30).save(path).unwrap();
}

/// A map of three values in blocks, 8 bits of grey.
fn map(root: &Path, name: &str) {
    let ids: Vec<u8> = (0..40 * 30).map(|i| [0, 15, 255][(i % 40 / 10 + i / 400) % 3]).collect();
    write_label(&root.join(name), 40, 30, &ids);
}

#[test]
fn label_maps_are_known_by_their_names_and_content_wherever_they_lie() {
    for (photos, maps, said) in [
        (
            ["JPEGImages/2007_000032.jpg", "JPEGImages/2008_000001.jpg"],
            ["SegmentationClass/2007_000032.png", "SegmentationObject/2008_000001.png"],
            "SegmentationClass/*.png, SegmentationObject/*.png",
        ),
        (
            ["images/training/ADE_train_1.jpg", "images/training/ADE_train_2.jpg"],
            ["annotations/training/ADE_train_1.png", "images/training/ADE_train_2_parts_1.png"],
            "annotations/training/*.png, images/training/*.png",
        ),
        (["a.jpg", "b.jpg"], ["a.png", "b.png"], "*.png"),
        (["cat.png", "dog.png"], ["cat_mask.png", "dog-truth.png"], "*-truth.png, *_mask.png"),
        (
            ["x/img_01.jpg", "x/img_02.jpg"],
            ["y/label_01.png", "y/label_02.bmp"],
            "y/*.bmp, y/*.png",
        ),
        (
            [
                "photos/ulm_000001_000019_leftImg8bit.png",
                "photos/ulm_000002_000019_leftImg8bit.png",
            ],
            [
                "gtFine/ulm_000001_000019_gtFine_labelIds.png",
                "gtFine/ulm_000002_000019_gtFine_color.tif",
            ],
            "gtFine/*_gtFine_labelIds.png, gtFine/*_gtFine_color.tif",
        ),
        (["1_sat.jpg", "2_sat.jpg"], ["1_mask.png", "2_mask.png"], "*_mask.png"),
        (
            ["a_json/img.png", "b_json/img.png"],
            ["a_json/label.png", "b_json/label.png"],
            "a_json/*.png, b_json/*.png",
        ),
        (["7/image.jpg", "8/image.jpg"], ["7/mask.png", "8/mask.png"], "7/*.png, 8/*.png"),
        (["beach.jpg", "cliff.jpg"], ["beach_mask1.png", "cliff_mask2.png"], "*.png"),
        (["S2_0001.tif", "S2_0002.tif"], ["mask_0001.png", "mask_0002.png"], "*.png"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        photos.iter().for_each(|name| photo(root, name));
        maps.iter().for_each(|name| map(root, name));
        let want: Vec<String> = photos.map(|name| name.rsplit_once('.').unwrap().0.into()).into();
        assert_eq!(listed(root).0, want, "{maps:?}");
        let said = format!("ROOT: 2 images; left out: 2 label maps ({said}; {ALL})");
        assert_eq!(line(root), said);
        assert_eq!(used(root, "every-image"), (4, String::new()));
    }
}

/// Whatever the pattern of a folder, only what was looked at is left out.
#[test]
fn photos_between_label_maps_stay() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for i in 0..24 {
        photo(root, &format!("a/{i}.jpg"));
        if i % 6 == 0 {
            map(root, &format!("b/{i}.png"))
        } else {
            photo(root, &format!("b/{i}.png"))
        }
    }
    assert_eq!(used(root, "folder").0, 44);
}

/// Twelve bits in sixteen have few colours only when they are made eight.
#[test]
fn a_picture_of_twelve_bits_is_no_label_map() {
    let dir = tempfile::tempdir().unwrap();
    photo(dir.path(), "a/1.jpg");
    std::fs::create_dir(dir.path().join("b")).unwrap();
    let dark = ImageBuffer::from_fn(60, 50, |x, y| Luma([(x * 50 + y) as u16]));
    DynamicImage::ImageLuma16(dark).save(dir.path().join("b/1.tif")).unwrap();
    assert_eq!((used(dir.path(), "folder").0, line(dir.path())), (2, String::new()));
}

#[test]
fn label_maps_of_any_encoding_are_known() {
    let colour = |x: u32, y: u32| (x / 10 + y / 10) % 3;
    let rgb = RgbImage::from_fn(40, 30, |x, y| {
        Rgb([[0, 0, 0], [128, 0, 0], [0, 0, 142]][colour(x, y) as usize])
    });
    let deep = ImageBuffer::from_fn(40, 30, |x, y| Luma([26000 + colour(x, y) as u16]));
    let grey = ImageBuffer::from_fn(40, 30, |x, y| Luma([100 * colour(x, y) as u8]));
    // A JPEG smears where regions meet.
    let blocks = image::imageops::resize(&rgb, 400, 300, image::imageops::Nearest);
    for (name, map) in [
        ("map.png", DynamicImage::from(rgb.clone())),
        ("map.tif", DynamicImage::ImageLuma16(deep)),
        ("map.bmp", rgb.into()),
        ("map.jpeg", DynamicImage::ImageLuma8(grey)),
        ("map.jpg", DynamicImage::from(blocks)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        photo(dir.path(), "photos/map.jpg");
        std::fs::create_dir(dir.path().join("truth")).unwrap();
        map.save(dir.path().join("truth").join(name)).unwrap();
        assert_eq!(listed(dir.path()).0, ["photos/map"], "{name}");
    }
}

/// Folders may share names without being photos and maps, and drawings are images, too.
#[test]
fn photos_that_share_names_stay() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["2019/1.png", "2020/1.png", "2020/1-b.png", "small/1.jpg"] {
        photo(root, name);
    }
    DynamicImage::from(gradient(40, 30)).to_luma8().save(root.join("2020/1_grey.png")).unwrap();
    assert_eq!((listed(root).0.len(), line(root)), (5, String::new()));
    // One of few colours without a photo of its name.
    map(root, "drawings/flag.png");
    assert_eq!(listed(root).0.len(), 6);
    // Label maps alone.
    let dir = tempfile::tempdir().unwrap();
    ["a/1.png", "b/1.png"].iter().for_each(|name| map(dir.path(), name));
    assert_eq!(listed(dir.path()).0.len(), 2);
}

/// Where samples of a family disagree each of it is looked at.
#[test]
fn a_folder_of_photos_and_label_maps_is_sorted_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for i in 0..6 {
        photo(root, &format!("{i}.jpg"));
        if i % 3 == 0 {
            photo(root, &format!("more/{i}.png"))
        } else {
            map(root, &format!("more/{i}.png"))
        }
    }
    let want = ["0", "1", "2", "3", "4", "5", "more/0", "more/3"];
    assert_eq!(listed(root).0, want);
    assert_eq!(line(root), format!("ROOT: 8 images; left out: 4 label maps (more/*.png; {ALL})"));
}

#[test]
fn what_systems_and_picie_leave_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    photo(root, "a.jpg");
    for name in [
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/b.jpg",
        "$RECYCLE.BIN/c.jpg",
        "lost+found/d.jpg",
        "__MACOSX/._a.jpg",
        ".thumbnails/e.png",
        ".Trash-1000/files/f.jpg",
        "._a.jpg",
        "Thumbs.db",
        "IMG_1.THM",
    ] {
        touch(&root.join(name));
    }
    assert_eq!(line(root), "ROOT: 1 images; passed over: 10 left by systems and cameras");
    // A sheet says of itself who drew it; outputs of older versions lie beside their photo.
    write_rgb(&root.join("sheet.png"), &gradient(8, 8)).unwrap();
    photo(root, "a-overlay.png");
    map(root, "a-labels.png");
    photo(root, "runs/one/pictures/1-a.png");
    touch(&root.join("runs/one/run.lock"));
    touch(&root.join("runs/one/run.json"));
    touch(&root.join("runs/begun/run.lock"));
    photo(root, "moved/pictures/1-a.png");
    touch(&root.join("moved/run.json"));
    touch(&root.join("moved/metrics.jsonl"));
    assert_eq!(
        line(root),
        "ROOT: 1 images; passed over: 10 left by systems and cameras, 6 written by picie"
    );
    // A lock makes no run of what lies beside it.
    photo(root, "runs/begun/mine.jpg");
    assert_eq!(listed(root).0, ["a", "runs/begun/mine"]);
    std::fs::remove_dir_all(root.join("runs/begun")).unwrap();
    // Such a name alone is anybody's.
    photo(root, "drawn-overlay.png");
    assert_eq!(listed(root).0, ["a", "drawn-overlay"]);
    std::fs::remove_file(root.join("a-overlay.png")).unwrap();
    assert!(line(root).contains("left out: 1 label maps (*-labels.png;"), "{}", line(root));
}

#[test]
fn each_file_is_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    photo(root, "a.jpg");
    gradient(9, 9).save_with_format(root.join("named by nobody"), image::ImageFormat::Png).unwrap();
    for name in
        ["b.HEIC", "c.heic", "d.CR2", "e.mp4", "f.zip", "notes.txt", "LICENSE", "g.jpg.part"]
    {
        touch(&root.join(name));
    }
    assert_eq!(listed(root).0, ["a", "named by nobody"]);
    assert_eq!(
        line(root),
        "ROOT: 2 images; left out: 2 HEIC, 1 CR2 (convert to JPEG or PNG), 1 unfinished downloads \
         (finish them), 1 ZIP (unpack first), 1 MP4 (write frames as JPEG or PNG); passed over: 1 \
         .txt, 1 without an ending"
    );
    std::fs::remove_file(root.join("a.jpg")).unwrap();
    std::fs::remove_file(root.join("named by nobody")).unwrap();
    let folder = Some(layout("folder"));
    let none = data::open(root, folder, "train", Classes::default(), &|_, _| ()).unwrap_err();
    assert!(none.to_string().contains("no image in this folder (left out: 2 HEIC"), "{none}");
}

/// COCO as it unpacks: no folder `images`, and the label maps of COCO-Stuff beside.
#[test]
fn flat_coco_is_coco() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for split in ["train2017", "val2017"] {
        photo(root, &format!("{split}/1.jpg"));
        map(root, &format!("stuffthingmaps/{split}/1.png"));
    }
    let open = |split| data::open(root, None, split, Classes::default(), &|_, _| ()).unwrap();
    let set = open("train");
    assert_eq!((set.layout.name, set.items.len()), ("coco-stuff", 1));
    assert_eq!(set.items[0].image, root.join("train2017/1.jpg"));
    let label = open("val").items.remove(0).label;
    assert_eq!(label, Some(root.join("stuffthingmaps/val2017/1.png")));
    // Folders beside those of the layout are counted.
    photo(root, "holiday/1/a.jpg");
    photo(root, "holiday/b.jpg");
    touch(&root.join("code/readme.txt"));
    let said = used(root, "coco-stuff").1;
    assert!(said.ends_with("left out: 2 images in holiday (--dataset folder takes all)"), "{said}");
}
