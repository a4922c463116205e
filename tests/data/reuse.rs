//! Sets that are kept from one start to the next.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::store::{SIZES, coco, dataset, load};
use crate::util::files::{touch, write_label};
use picie::base::Result;
use picie::data::{Classes, Dataset, EvalStore, Fit, ImageStore, Item, Load, kept, open};

/// A data set of [`SIZES`] and a cache folder.
fn place() -> (tempfile::TempDir, tempfile::TempDir) {
    (coco(&SIZES), tempfile::tempdir().unwrap())
}

fn keeping(cache: &Path, budget: u64) -> Load<'_> {
    Load { keep: Some(0), ..load(cache, budget, false) }
}

/// Pixels and classes of all images, as the engine gets them.
fn bytes(store: &EvalStore) -> Result<(Vec<u8>, Vec<u8>)> {
    let (n, area) = (store.images.len(), store.images.size() * store.images.size());
    let index: Vec<u32> = (0..n as u32).rev().collect();
    let (mut pixels, mut classes) = (vec![7; 3 * n * area], vec![7; n * area]);
    store.images.gather(&index, &mut pixels)?;
    store.gather_labels(&index, &mut classes)?;
    Ok((pixels, classes))
}

/// Whether a kept set was used; none where nothing is kept.
fn reused(images: &ImageStore) -> Option<bool> {
    images.kept.as_ref().map(|kept| kept.reused)
}

fn kept_files(cache: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cache.join(kept::FOLDER)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_second_start_takes_the_same_bytes_from_the_file() {
    let (dir, cache) = place();
    // A picture that is left out leaves a hole.
    touch(&dir.path().join("images/val2017/b.jpg"));
    let set = dataset(dir.path());
    for budget in [u64::MAX, 0] {
        let plain = EvalStore::load(&set, &load(cache.path(), budget, false)).unwrap();
        assert_eq!((reused(&plain.images), kept_files(cache.path()).len()), (None, 0));
        let want = bytes(&plain).unwrap();
        for again in [false, true] {
            let store = EvalStore::load(&set, &keeping(cache.path(), budget)).unwrap();
            assert_eq!(reused(&store.images), Some(again), "{:?}", store.images.notes);
            assert_eq!(store.images.memory(), 0);
            assert_eq!(bytes(&store).unwrap(), want);
            assert_eq!(
                (&store.images.items, &store.images.sizes),
                (&plain.images.items, &plain.images.sizes)
            );
            let [ours, theirs] =
                [&store.images, &plain.images].map(|images| images.skipped[0].to_string());
            assert_eq!(ours, theirs);
            assert!(store.images.notes.is_empty());
            let mode = store.images.kept.unwrap().path.metadata().unwrap().permissions();
            assert_eq!(
                std::os::unix::fs::PermissionsExt::mode(&mode) & 0o077,
                0,
                "others may read the images"
            );
        }
        // Strictly the picture that was left out is an error, kept or not.
        let strict = Load { strict: true, ..keeping(cache.path(), budget) };
        let e = EvalStore::load(&set, &strict).err().unwrap().to_string();
        assert!(e.contains("b.jpg: the file is empty"), "{e}");
        std::fs::remove_dir_all(cache.path().join(kept::FOLDER)).unwrap();
    }
}

#[test]
fn a_set_that_is_cleared_lasts_as_long_as_its_readers() {
    let (dir, cache) = place();
    let stores =
        [(); 2].map(|()| EvalStore::load(&dataset(dir.path()), &keeping(cache.path(), 0)).unwrap());
    let want = bytes(&stores[0]).unwrap();
    std::fs::remove_dir_all(cache.path().join(kept::FOLDER)).unwrap();
    stores.iter().for_each(|store| assert_eq!(bytes(store).unwrap(), want));
}

#[test]
fn any_change_of_what_records_depend_on_decodes_again() {
    let (dir, cache) = place();
    let image = |id: &str| dir.path().join(format!("images/val2017/{id}.jpg"));
    let start = |change: &dyn Fn(&mut Load)| {
        let mut load = keeping(cache.path(), u64::MAX);
        change(&mut load);
        let set = dataset(dir.path());
        [
            reused(&EvalStore::load(&set, &load).unwrap().images).unwrap(),
            reused(&ImageStore::load(&set, &load).unwrap()).unwrap(),
        ]
    };
    assert_eq!(start(&|_| ()), [false, false]);
    assert_eq!(start(&|_| ()), [true, true]);
    assert_eq!(start(&|load| load.square.side = 7), [false, false]);
    assert_eq!(start(&|load| load.exif = false), [false, false]);
    assert_eq!(start(&|load| load.square.fit = Fit::Pad { scale: 1.0 }), [false, false]);
    assert_eq!(start(&|load| load.square.fit = Fit::Pad { scale: 0.5 }), [false, false]);
    let stuff = open(dir.path(), None, "val", Classes(15), &|_, _| ()).unwrap();
    let load = keeping(cache.path(), u64::MAX);
    assert_eq!(reused(&EvalStore::load(&stuff, &load).unwrap().images), Some(false));
    // Images without labels are the same under any classes.
    assert_eq!(reused(&ImageStore::load(&stuff, &load).unwrap()), Some(true));
    assert_eq!(start(&|_| ()), [true, true]);

    // Other contents of the same length, put back to the old time.
    let (old, time) =
        (std::fs::read(image("a")).unwrap(), image("a").metadata().unwrap().modified().unwrap());
    let mut other = old.clone();
    let end = other.len() - 1;
    other[end] ^= 1;
    std::fs::write(image("a"), &other).unwrap();
    File::options().write(true).open(image("a")).unwrap().set_modified(time).unwrap();
    assert_eq!(start(&|_| ()), [false, false]);
    // Another time alone.
    File::options()
        .write(true)
        .open(image("a"))
        .unwrap()
        .set_modified(time + Duration::from_secs(1))
        .unwrap();
    assert_eq!(start(&|_| ()), [false, false]);
    // A label map, which does not matter to who does not read it.
    write_label(&dir.path().join("annotations/val2017/c.png"), 5, 7, &[156; 35]);
    assert_eq!(start(&|_| ()), [false, true]);
    // Its size may turn the image.
    let plain = |exif| {
        let load = Load { exif, ..keeping(cache.path(), u64::MAX) };
        reused(&ImageStore::load(&dataset(dir.path()), &load).unwrap())
    };
    assert_eq!([plain(true), plain(false)], [Some(true), Some(false)]);
    write_label(&dir.path().join("annotations/val2017/c.png"), 7, 5, &[156; 35]);
    assert_eq!([plain(true), plain(false)], [Some(false), Some(true)]);
    write_label(&dir.path().join("annotations/val2017/c.png"), 5, 7, &[156; 35]);
    assert_eq!(start(&|_| ()), [false, true]);
    std::fs::copy(image("a"), image("e")).unwrap();
    assert_eq!(start(&|_| ()), [false, false]);
    std::fs::remove_file(image("e")).unwrap();
    // This set is there from before.
    assert_eq!(start(&|_| ()), [true, true]);
    std::fs::rename(image("d"), image("f")).unwrap();
    assert_eq!(start(&|_| ()), [false, false]);
}

#[test]
fn damage_is_noticed_wherever_it_is_and_mended() {
    let (dir, cache) = place();
    let set = dataset(dir.path());
    let first = EvalStore::load(&set, &keeping(cache.path(), u64::MAX)).unwrap();
    let (want, path) = (bytes(&first).unwrap(), first.images.kept.unwrap().path);
    let whole = std::fs::read(&path).unwrap();
    // Four records of 144 bytes, then JSON and the 24 bytes behind it.
    let flips = [0, 107, 108, 143, 575]
        .into_iter()
        .chain([576, 700, whole.len() - 25])
        .chain(whole.len() - 24..whole.len());
    let flipped = flips.map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 16;
        (format!("byte {at} of {}", whole.len()), bytes)
    });
    let cut = [0, 10, 575, whole.len() - 24, whole.len() - 1]
        .map(|end| (format!("cut at {end}"), whole[..end].to_vec()));
    let longer = ("a hole in front".into(), [vec![0; 144], whole.clone()].concat());
    for (what, bytes_on_disk) in flipped.chain(cut).chain([longer]) {
        std::fs::write(&path, &bytes_on_disk).unwrap();
        let mut store = EvalStore::load(&set, &keeping(cache.path(), 0)).unwrap();
        if reused(&store.images) == Some(true) {
            // A damaged record is met when it is read.
            let e = bytes(&store).unwrap_err().to_string();
            assert!(
                e.contains("these decoded images are damaged; they are removed: run the same"),
                "{what}: {e}"
            );
            assert!(!path.exists());
            store = EvalStore::load(&set, &keeping(cache.path(), 0)).unwrap();
        } else {
            let notes = &store.images.notes;
            assert!(
                notes.len() == 1 && notes[0].ends_with("): they are decoded again"),
                "{what}: {notes:?}"
            );
        }
        assert_eq!(
            (reused(&store.images), bytes(&store).unwrap()),
            (Some(false), want.clone()),
            "{what}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), whole, "{what}");
    }
    // The file of another set under this one's name.
    let images = ImageStore::load(&set, &keeping(cache.path(), u64::MAX)).unwrap();
    std::fs::copy(images.kept.unwrap().path, &path).unwrap();
    let store = EvalStore::load(&set, &keeping(cache.path(), u64::MAX)).unwrap();
    assert_eq!((reused(&store.images), bytes(&store).unwrap()), (Some(false), want));
}

#[test]
fn what_a_killed_writer_leaves_is_no_set_and_goes() {
    let (dir, cache) = place();
    let set = dataset(dir.path());
    let store = ImageStore::load(&set, &keeping(cache.path(), u64::MAX)).unwrap();
    let path = store.kept.unwrap().path;
    // As a kill before the rename leaves it, whole or half; nobody holds its lock.
    let left = path.with_file_name(".writing-x7x7x7");
    std::fs::rename(&path, &left).unwrap();
    // And one whose writer is alive.
    let alive = path.with_file_name(".writing-y8y8y8");
    std::fs::write(&alive, vec![1; 9000]).unwrap();
    let writer = File::open(&alive).unwrap();
    writer.lock().unwrap();
    let store = ImageStore::load(&set, &keeping(cache.path(), u64::MAX)).unwrap();
    assert_eq!((reused(&store), left.exists(), alive.exists()), (Some(false), false, true));
    // What ends in an error leaves nothing, either.
    std::fs::remove_file(&path).unwrap();
    touch(&dir.path().join("annotations/val2017/d.png"));
    EvalStore::load(&dataset(dir.path()), &keeping(cache.path(), u64::MAX)).err().unwrap();
    assert_eq!(kept_files(cache.path()), [alive]);
}

#[test]
fn where_nothing_can_be_kept_the_run_goes_on_and_says_so() {
    let (dir, cache) = place();
    let set = dataset(dir.path());
    std::fs::write(cache.path().join(kept::FOLDER), "in the way").unwrap();
    for budget in [u64::MAX, 0] {
        let store = EvalStore::load(&set, &keeping(cache.path(), budget)).unwrap();
        assert_eq!((reused(&store.images), bytes(&store).unwrap().0.len()), (None, 4 * 108));
        let notes = &store.images.notes;
        let said = notes.iter().filter(|note| {
            note.starts_with("the decoded images are not kept for the next start: ")
        });
        assert_eq!(said.count(), 1, "{notes:?}");
    }
}

/// A disk error may be gone tomorrow; a set without that picture would stay.
#[test]
fn a_picture_that_cannot_be_read_now_keeps_the_set_from_being_kept() {
    let (dir, cache) = place();
    let image = dir.path().join("images/val2017/b.jpg");
    // A folder can be opened but not read, by anybody.
    std::fs::remove_file(&image).unwrap();
    std::fs::create_dir(&image).unwrap();
    let set = Dataset { items: dataset(dir.path()).items, ..dataset(dir.path()) };
    let item = |id: &str| Item {
        id: id.into(),
        image: dir.path().join(format!("images/val2017/{id}.jpg")),
        label: None,
    };
    let set = Dataset { items: ["a", "b", "c"].map(item).to_vec(), ..set };
    let store = ImageStore::load(&set, &keeping(cache.path(), u64::MAX)).unwrap();
    assert_eq!((store.len(), reused(&store), store.notes.len()), (2, None, 1));
    std::fs::remove_dir(&image).unwrap();
    // One that is not there is known by that.
    for again in [false, true] {
        assert_eq!(
            reused(&ImageStore::load(&set, &keeping(cache.path(), u64::MAX)).unwrap()),
            Some(again)
        );
    }
}

#[test]
fn small_sets_are_not_kept() {
    let (dir, cache) = place();
    let set = dataset(dir.path());
    let size = |path: &Path| path.metadata().unwrap().len();
    let images: u64 = set.items.iter().map(|item| size(&item.image)).sum();
    let labels: u64 = set.items.iter().map(|item| size(item.label.as_ref().unwrap())).sum();
    for (least, [labelled, plain]) in
        [(images, [true, true]), (images + 1, [true, false]), (images + labels + 1, [false; 2])]
    {
        let load = Load { keep: Some(least), ..keeping(cache.path(), u64::MAX) };
        assert_eq!(reused(&EvalStore::load(&set, &load).unwrap().images).is_some(), labelled);
        assert_eq!(reused(&ImageStore::load(&set, &load).unwrap()).is_some(), plain);
    }
}

#[test]
fn the_set_that_was_not_used_for_longest_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, minutes: u64| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let time = SystemTime::now() - Duration::from_secs(60 * minutes);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    };
    let [old, oldest, new] = [file("a.picie", 5), file("b.picie", 9), file("c.picie", 1)];
    file("cudnn-engines.json", 99);
    let there = || [&old, &oldest, &new].map(|path| path.exists());
    let mib = kept::sets(folder.path()).iter().map(|set| set.bytes).max().unwrap();
    let make_room =
        |wanted: u64, free: u64| kept::make_room(folder.path(), wanted * mib, free * mib);
    // Half of what is free without them: of 3 + 5 four.
    make_room(1, 5).unwrap();
    assert_eq!(there(), [true; 3]);
    let e = make_room(5, 5).unwrap_err().to_string();
    assert!(e.contains("more than half of the disk's free space"), "{e}");
    assert_eq!(there(), [true; 3]);
    make_room(2, 5).unwrap();
    assert_eq!(there(), [true, false, true]);
    make_room(3, 6).unwrap();
    assert_eq!(there(), [false, false, true]);
    // A set that is used counts as new.
    let (dir, cache) = place();
    let load = keeping(cache.path(), u64::MAX);
    let path = ImageStore::load(&dataset(dir.path()), &load).unwrap().kept.unwrap().path;
    let day = SystemTime::now() - Duration::from_secs(86400);
    File::options().write(true).open(&path).unwrap().set_modified(day).unwrap();
    ImageStore::load(&dataset(dir.path()), &load).unwrap();
    assert!(path.metadata().unwrap().modified().unwrap() > day + Duration::from_secs(3600));
}

#[test]
fn two_that_make_the_same_file_at_once_both_work() {
    let (dir, cache) = place();
    let set = dataset(dir.path());
    let want = bytes(&EvalStore::load(&set, &load(cache.path(), 0, false)).unwrap()).unwrap();
    let one = |i: u64| {
        let store = EvalStore::load(&set, &keeping(cache.path(), i % 2 * u64::MAX)).unwrap();
        assert_eq!((bytes(&store).unwrap(), store.images.notes.len()), (want.clone(), 0));
    };
    std::thread::scope(|scope| (0..8).for_each(|i| drop(scope.spawn(move || one(i)))));
    assert_eq!(kept_files(cache.path()).len(), 1);
    assert_eq!(
        reused(&EvalStore::load(&set, &keeping(cache.path(), 0)).unwrap().images),
        Some(true)
    );
}
