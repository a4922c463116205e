//! Stores of images and of images with labels, in memory and in files.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::layouts::layout;
use crate::util::files::{gradient, touch, with_orientation, write_label};
use picie::base::Error;
use picie::data::{
    Classes, Dataset, EvalStore, Fit, IGNORE, ImageStore, Load, Square, decode, open, transform,
};

/// A COCO-Stuff folder: `sizes` images a, b, c, … with label maps of 156 (sky) above and 154 (sea)
/// below, right half 255.
pub fn coco(sizes: &[(u32, u32)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, &(w, h)) in sizes.iter().enumerate() {
        let id = (b'a' + i as u8) as char;
        touch(&dir.path().join(format!("images/val2017/{id}.jpg")));
        // The format is taken from the content: PNG, so that pixels are exact.
        gradient(w, h)
            .save_with_format(
                dir.path().join(format!("images/val2017/{id}.jpg")),
                image::ImageFormat::Png,
            )
            .unwrap();
        let id_at = |x: u32, y: u32| if 2 * x >= w { 255 } else { 156 - 2 * u8::from(2 * y >= h) };
        let map: Vec<u8> = (0..h).flat_map(|y| (0..w).map(move |x| id_at(x, y))).collect();
        write_label(
            &dir.path().join(format!("annotations/val2017/{id}.png")),
            w as usize,
            h as usize,
            &map,
        );
    }
    dir
}

pub fn dataset(root: &Path) -> Dataset {
    open(root, Some(layout("coco-stuff")), "val", Classes::default(), &|_, _| ()).unwrap()
}

pub fn load(root: &Path, budget: u64, strict: bool) -> Load<'_> {
    let square = Square::new(6, Fit::Crop);
    Load { square, budget, cache: root, keep: None, exif: true, strict, on_progress: &|_, _| () }
}

pub const SIZES: [(u32, u32); 4] = [(6, 6), (13, 9), (5, 7), (40, 6)];

#[test]
fn memory_and_file_hold_the_same_pictures_and_labels_in_step() {
    let dir = coco(&SIZES);
    let set = dataset(dir.path());
    let (mut seen, index) = (vec![], [3, 0, 2, 2, 1]);
    for budget in [u64::MAX, 0] {
        let store = EvalStore::load(&set, &load(dir.path(), budget, true)).unwrap();
        assert_eq!(
            (store.images.len(), store.images.size(), store.images.skipped.len()),
            (4, 6, 0)
        );
        assert_eq!(store.images.memory() > 0, budget > 0);
        let (mut x, mut y) = (vec![1; 5 * 108], vec![1; 5 * 36]);
        store.images.gather(&index, &mut x).unwrap();
        store.gather_labels(&index, &mut y).unwrap();
        // Picture 0 is 6 × 6, so it is stored as it is.
        assert_eq!(x[108..216], *gradient(6, 6));
        let want = [
            [[23u8, 23, 23, IGNORE, IGNORE, IGNORE]; 3],
            [[26, 26, 26, IGNORE, IGNORE, IGNORE]; 3],
        ];
        assert_eq!(y[36..72], *want.as_flattened().as_flattened());
        assert_eq!(x[216..324], x[324..432]);
        let images = ImageStore::load(&set, &load(dir.path(), budget, true)).unwrap();
        let mut same = vec![0; 5 * 108];
        images.gather(&index, &mut same).unwrap();
        assert_eq!(same, x);
        seen.push((x, y));
    }
    assert_eq!(seen[0], seen[1]);
    // The cache file has no name.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn any_number_of_threads_gives_the_same_store() {
    let dir = coco(&SIZES);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut out = vec![0; 4 * 108];
        pool.install(|| {
            let calls = AtomicUsize::new(0);
            let count = |_, total| assert!(calls.fetch_add(1, Ordering::Relaxed) < total);
            let load = Load { on_progress: &count, ..load(dir.path(), 1 << 20, false) };
            ImageStore::load(&dataset(dir.path()), &load)
                .unwrap()
                .gather(&[0, 1, 2, 3], &mut out)
                .unwrap();
            assert_eq!(calls.into_inner(), 4);
        });
        out
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn broken_pictures_are_left_out_and_listed_or_strictly_refused() {
    let dir = coco(&SIZES);
    touch(&dir.path().join("images/val2017/b.jpg"));
    let whole = std::fs::read(dir.path().join("images/val2017/d.jpg")).unwrap();
    std::fs::write(dir.path().join("images/val2017/d.jpg"), &whole[..whole.len() - 30]).unwrap();
    let set = dataset(dir.path());
    let store = EvalStore::load(&set, &load(dir.path(), 1 << 20, false)).unwrap();
    let ids: Vec<_> = store.images.items.iter().map(|i| i.id.as_str()).collect();
    assert_eq!(ids, ["a", "c"]);
    let why: Vec<_> = store.images.skipped.iter().map(Error::to_string).collect();
    assert!(
        why[0].contains("b.jpg: the file is empty") && why[1].contains("d.jpg") && why.len() == 2,
        "{why:?}"
    );
    let (mut y, mut c) = (vec![0; 36], vec![0; 36]);
    store.gather_labels(&[1], &mut y).unwrap();
    // Item 1 is "c" now, 5 × 7: the crop starts at row 1 of 8.
    transform::label(
        &decode::label(&dir.path().join("annotations/val2017/c.png")).unwrap(),
        Square::new(6, Fit::Crop),
        &mut c,
    );
    set.taxonomy.as_ref().unwrap().classify(Path::new(""), &mut c).unwrap();
    assert_eq!(y, c);
    let strict =
        ImageStore::load(&set, &load(dir.path(), 1 << 20, true)).err().unwrap().to_string();
    assert!(strict.contains("b.jpg: the file is empty"), "{strict}");
    for id in ["a", "c"] {
        std::fs::remove_file(dir.path().join(format!("images/val2017/{id}.jpg"))).unwrap();
    }
    let none = ImageStore::load(&set, &load(dir.path(), 1 << 20, false)).err().unwrap().to_string();
    assert!(
        none.contains("none of the 4 images can be used") && none.contains("a.jpg: no such file"),
        "{none}"
    );
}

#[test]
fn label_maps_that_are_missing_or_wrong() {
    let dir = coco(&SIZES);
    let label = |id: &str| dir.path().join(format!("annotations/val2017/{id}.png"));
    let fails = |strict| {
        EvalStore::load(&dataset(dir.path()), &load(dir.path(), 0, strict))
            .err()
            .unwrap()
            .to_string()
    };
    std::fs::remove_file(label("b")).unwrap();
    let store = EvalStore::load(&dataset(dir.path()), &load(dir.path(), 0, false)).unwrap();
    assert_eq!(store.images.len(), 3);
    assert!(store.images.skipped[0].to_string().contains("b.jpg: no label map for this image"));
    assert!(fails(true).contains("b.jpg: no label map"));
    // To train, labels do not matter.
    assert_eq!(
        ImageStore::load(&dataset(dir.path()), &load(dir.path(), 0, true)).unwrap().len(),
        4
    );

    write_label(&label("c"), 7, 5, &[156; 35]);
    let e = fails(false);
    assert!(
        e.contains("c.png: the label map is 7 × 5 but its image") && e.contains("c.jpg is 5 × 7"),
        "{e}"
    );
    write_label(&label("c"), 5, 7, &[200; 35]);
    assert!(fails(false).contains("c.png: the label map holds the value 200"));
    touch(&label("c"));
    assert!(fails(false).contains("c.png: the file is empty"));

    let plain =
        open(dir.path(), Some(layout("folder")), "val", Classes::default(), &|_, _| ()).unwrap();
    let e = EvalStore::load(&plain, &load(dir.path(), 0, false)).err().unwrap().to_string();
    assert!(e.contains("has no labels"), "{e}");
}

/// Padding is black, and ignored in evaluation.
#[test]
fn a_small_picture_is_padded_with_its_label_map() {
    let dir = coco(&[(4, 6)]);
    let load =
        Load { square: Square::new(6, Fit::Pad { scale: 1.0 }), ..load(dir.path(), 1 << 20, true) };
    let store = EvalStore::load(&dataset(dir.path()), &load).unwrap();
    let (mut x, mut y) = (vec![1; 108], vec![1; 36]);
    store.images.gather(&[0], &mut x).unwrap();
    store.gather_labels(&[0], &mut y).unwrap();
    assert_eq!(x[3..15], gradient(4, 6).as_raw()[..12]);
    assert!(x.chunks(18).all(|row| row[..3] == [0; 3] && row[15..] == [0; 3]));
    let want = [
        [[IGNORE, 23, 23, IGNORE, IGNORE, IGNORE]; 3],
        [[IGNORE, 26, 26, IGNORE, IGNORE, IGNORE]; 3],
    ];
    assert_eq!(y, *want.as_flattened().as_flattened());
}

/// Colours and grey ids are the same classes.
#[test]
fn potsdam_patches_are_read_in_colour_and_in_grey() {
    let dir = tempfile::tempdir().unwrap();
    let colours =
        [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0]];
    for id in ["a", "b"] {
        touch(&dir.path().join(format!("imgs/{id}.png")));
        gradient(6, 6).save(dir.path().join(format!("imgs/{id}.png"))).unwrap();
    }
    write_label(&dir.path().join("gt/a.png"), 6, 6, &(0..36).map(|i| i % 6).collect::<Vec<_>>());
    image::RgbImage::from_fn(6, 6, |x, _| image::Rgb(colours[x as usize]))
        .save(dir.path().join("gt/b.png"))
        .unwrap();
    for (classes, want) in [(Classes(3), [0, 1, 2, 2, 0, 1]), (Classes(6), [0, 1, 2, 3, 4, 5])] {
        let set = open(dir.path(), None, "val", classes, &|_, _| ()).unwrap();
        let store = EvalStore::load(&set, &load(dir.path(), 1 << 20, true)).unwrap();
        let mut y = vec![9; 72];
        store.gather_labels(&[0, 1], &mut y).unwrap();
        assert!(y.chunks(6).all(|row| row == want), "{y:?}");
    }
    let e = open(dir.path(), None, "val", Classes::default(), &|_, _| ()).unwrap_err().to_string();
    assert!(e.contains("use --classes 3 or --classes 6"), "{e}");
}

#[test]
fn a_buffer_of_another_size_is_refused() {
    let dir = coco(&SIZES);
    let store = ImageStore::load(&dataset(dir.path()), &load(dir.path(), 0, true)).unwrap();
    let e = store.gather(&[1, 2], &mut [0; 108]).unwrap_err().to_string();
    assert_eq!(e, "gather: out has 108 elements, the contract wants 216");
}

/// Label maps are drawn on pictures as people see them, or on their pixels as they are stored.
#[test]
fn a_turned_picture_fits_its_label_map_either_way() {
    let dir = coco(&[(9, 6)]);
    let (picture, label) =
        (dir.path().join("images/val2017/a.jpg"), dir.path().join("annotations/val2017/a.png"));
    let mut jpeg = std::io::Cursor::new(Vec::new());
    gradient(9, 6).write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    std::fs::write(&picture, with_orientation(&jpeg.into_inner(), 8)).unwrap();
    for (w, h) in [(9, 6), (6, 9)] {
        write_label(&label, w, h, &[156; 54]);
        let store =
            EvalStore::load(&dataset(dir.path()), &load(dir.path(), 1 << 20, true)).unwrap();
        assert_eq!(store.images.sizes, [(w, h)]);
        let (mut got, mut want) = (vec![0; 108], vec![0; 108]);
        store.images.gather(&[0], &mut got).unwrap();
        let upright = decode::rgb_of_label(&picture, &label, true).unwrap();
        transform::image(&upright, Square::new(6, Fit::Crop), &mut want);
        assert_eq!(got, want);
        // It is the same picture where its label map is not read.
        let plain = ImageStore::load(&dataset(dir.path()), &load(dir.path(), 0, true)).unwrap();
        assert_eq!(plain.sizes, [(w, h)]);
    }
    write_label(&label, 8, 6, &[156; 48]);
    let e = EvalStore::load(&dataset(dir.path()), &load(dir.path(), 0, true))
        .err()
        .unwrap()
        .to_string();
    assert!(
        e.contains("a.png: the label map is 8 × 6 but its image") && e.contains("is 6 × 9"),
        "{e}"
    );
    let said = |exif| {
        let load = Load { exif, ..load(dir.path(), 0, true) };
        EvalStore::load(&dataset(dir.path()), &load).err().map(|e| e.to_string())
    };
    // Upright as it looks, and turned once more.
    write_label(&label, 6, 9, &[156; 54]);
    assert_eq!(said(true), None);
    let turned = "is 9 × 6: one of them is turned by a quarter; leave out --no-exif";
    assert!(said(false).is_some_and(|e| e.ends_with(turned)), "{:?}", said(false));
    gradient(9, 6).save_with_format(&picture, image::ImageFormat::Png).unwrap();
    for exif in [true, false] {
        // There is no orientation to be left out.
        assert!(said(exif).is_some_and(|e| e.ends_with("by a quarter; turn one of them")));
    }
}

/// A set is known by what its pictures show, wherever they are stored.
#[test]
fn a_fingerprint_is_of_names_and_of_content() {
    let dir = coco(&SIZES);
    let fingerprint = |budget| {
        let load = load(dir.path(), budget, true);
        let of = |planes: ImageStore| planes.fingerprint();
        let labelled = EvalStore::load(&dataset(dir.path()), &load).unwrap().images;
        let prints = [of(labelled), of(ImageStore::load(&dataset(dir.path()), &load).unwrap())];
        assert_eq!(prints[0], prints[1]);
        prints[0]
    };
    let first = fingerprint(u64::MAX);
    assert_eq!(fingerprint(0), first);
    let path = dir.path().join("images/val2017/a.jpg");
    gradient(6, 5).save_with_format(&path, image::ImageFormat::Png).unwrap();
    write_label(&dir.path().join("annotations/val2017/a.png"), 6, 5, &[156; 30]);
    let changed = fingerprint(u64::MAX);
    assert!(changed != first && changed.same_names(&first));
    std::fs::rename(&path, dir.path().join("images/val2017/e.jpg")).unwrap();
    let images = |root| ImageStore::load(&dataset(root), &load(root, 0, true)).unwrap();
    assert!(!images(dir.path()).fingerprint().same_names(&first));
}
