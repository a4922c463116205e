//! A small data set of painted landscapes in the COCO-Stuff layout: JPEG pictures, PNG label maps,
//! curated lists. Nine classes (sky, mountain, sea, grass, road, house, person, car, sheep) that
//! fall into nine of the 27 coarse classes.

mod canvas;
mod ground;
mod landscape;
mod things;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;

use super::{OnProgress, layouts};
use crate::base::fs::{listed, remove_abandoned, write_atomic};
use crate::base::{Error, Result, stop};

/// What a finished folder was made with; a change to the painting counts `version` up.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Drawing {
    version: u32,
    train: usize,
    val: usize,
    seed: u64,
}

impl Drawing {
    /// Whether `dir` is a finished folder of these scenes.
    fn is_in(&self, dir: &Path) -> bool {
        std::fs::read(dir.join(DRAWING)).is_ok_and(|text| {
            serde_json::from_slice::<Drawing>(&text).is_ok_and(|old| old == *self)
        })
    }
}

/// The prefix of the names of unfinished folders.
pub const UNFINISHED: &str = ".scenes-";
const DRAWING: &str = "scenes.json";
const JPEG_QUALITY: u8 = 92;

/// Draws `train` and `val` scenes into the folder `dir`, which then is a COCO-Stuff data set. A
/// scene depends on seed, split and number only. Returns at once if `dir` already holds the same
/// scenes.
///
/// Everything is drawn into a folder beside `dir` that is renamed when it is complete, so a kill
/// leaves no half data set.
///
/// Errors: `dir` holds anything else (it is left alone); the disk is full.
pub fn write(
    dir: &Path,
    train: usize,
    val: usize,
    seed: u64,
    on_progress: OnProgress,
) -> Result<()> {
    let drawing = Drawing { version: 1, train, val, seed };
    if train == 0 || val == 0 {
        return Err(Error::input(
            format!("{train} training and {val} validation scenes"),
            "ask for at least one of each",
        ));
    }
    if drawing.is_in(dir) {
        return Ok(());
    }
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
        return Err(Error::file(
            dir,
            "there is something else in this place",
            "choose another folder or remove it",
        ));
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |e| Error::io(dir, e);
    std::fs::create_dir_all(parent).map_err(io)?;
    remove_abandoned(parent, UNFINISHED);
    let named = || tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent);
    let (temp, _listed) = listed(named).map_err(io)?;
    // Where folders cannot be locked no one takes this one for abandoned.
    let _lock = std::fs::File::open(temp.path()).map(|folder| folder.lock().map(|()| folder));

    let done = AtomicUsize::new(0);
    for (split, (name, count)) in [("train2017", train), ("val2017", val)].into_iter().enumerate() {
        for tree in ["images", "annotations", "curated"] {
            std::fs::create_dir_all(temp.path().join(tree).join(name)).map_err(io)?;
        }
        (0..count).into_par_iter().try_for_each(|i| -> Result<()> {
            stop::check()?;
            scene(temp.path(), name, seed, split as u32, i as u32)?;
            on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, train + val);
            Ok(())
        })?;
        let ids: String = (0..count).map(|i| id(i as u32) + "\n").collect();
        let list = temp.path().join("curated").join(name).join(layouts::CURATED);
        write_atomic(&list, |w| w.write_all(ids.as_bytes()))?;
    }
    let text = serde_json::to_vec(&drawing).expect("plain numbers");
    write_atomic(&temp.path().join(DRAWING), |w| w.write_all(&text))?;
    open_to_all(temp.path()).map_err(io)?;
    // NOTE: `keep` comes after the rename, or a failed rename would leave the temporary folder
    // behind.
    match std::fs::rename(temp.path(), dir) {
        Ok(()) => {
            let _ = temp.keep();
            Ok(())
        }
        // Another process was quicker.
        Err(_) if drawing.is_in(dir) => Ok(()),
        Err(e) => Err(io(e)),
    }
}

/// Temporary folders are for their owner only; a data set is for whoever the umask lets in.
fn open_to_all(folder: &Path) -> std::io::Result<()> {
    let usual = std::fs::metadata(folder.join("images"))?.permissions();
    std::fs::set_permissions(folder, usual)
}

/// The id of a scene: 12 digits, as COCO names its files.
fn id(index: u32) -> String {
    format!("{:012}", index + 1)
}

/// Draws one scene and writes its picture and its label map.
fn scene(root: &Path, split_name: &str, seed: u64, split: u32, index: u32) -> Result<()> {
    let canvas = landscape::draw(seed, split, index);
    let (w, h) = (canvas.width as u32, canvas.height as u32);
    let pixels: Vec<u8> =
        canvas.colors.as_flattened().iter().map(|v| (v * 255.0).round() as u8).collect();
    let path = |tree: &str, kind: &str| {
        root.join(tree).join(split_name).join(format!("{}.{kind}", id(index)))
    };
    let mut jpeg = Vec::new();
    let mut png = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
        .write_image(&pixels, w, h, ExtendedColorType::Rgb8)
        .and_then(|()| {
            PngEncoder::new(&mut png).write_image(&canvas.ids, w, h, ExtendedColorType::L8)
        });
    encoded.map_err(|e| Error::file(root, e, "report this: a scene could not be encoded"))?;
    for (path, bytes) in [(path("images", "jpg"), jpeg), (path("annotations", "png"), png)] {
        std::fs::File::create(&path)
            .and_then(|mut f| f.write_all(&bytes))
            .map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Classes, EvalStore, Fit, Load, Square, decode, open};

    #[test]
    fn the_scenes_are_a_coco_stuff_data_set_with_nine_coarse_classes() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("cache/scenes");
        let done = AtomicUsize::new(0);
        let count = |_, total| assert!(done.fetch_add(1, Ordering::Relaxed) < total);
        write(&dir, 2, 12, 5, &count).unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 14);
        // Nothing is left beside it.
        assert_eq!(std::fs::read_dir(home.path().join("cache")).unwrap().count(), 1);

        let set = open(&dir, None, "val", Classes::default(), &|_, _| ()).unwrap();
        assert_eq!((set.layout.name, set.items.len()), ("coco-stuff", 12));
        let load = Load {
            square: Square::new(64, Fit::Crop),
            budget: 1 << 24,
            cache: &dir,
            keep: None,
            exif: true,
            strict: true,
            on_progress: &|_, _| (),
        };
        let store = EvalStore::load(&set, &load).unwrap();
        let mut classes = vec![0; 12 * 64 * 64];
        store.gather_labels(&(0..12).collect::<Vec<u32>>(), &mut classes).unwrap();
        classes.sort();
        classes.dedup();
        // animal, person, vehicle, building, ground, plant, sky, solid, water
        assert_eq!(classes, [7, 9, 11, 20, 21, 22, 23, 24, 26]);
        // Portrait and landscape pictures are among them.
        let shapes: Vec<_> = set
            .items
            .iter()
            .map(|i| decode::rgb(&i.image, true).unwrap())
            .map(|i| i.width.cmp(&i.height))
            .collect();
        assert!(shapes.iter().any(|s| s.is_lt()) && shapes.iter().any(|s| s.is_gt()));
    }

    #[test]
    fn a_finished_folder_is_used_again_and_anything_else_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("scenes");
        write(&dir, 1, 1, 5, &|_, _| ()).unwrap();
        let image = dir.join("images/train2017/000000000001.jpg");
        let first = std::fs::read(&image).unwrap();
        write(&dir, 1, 1, 5, &|_, _| panic!("drawn again")).unwrap();
        let e = write(&dir, 1, 1, 6, &|_, _| ()).unwrap_err().to_string();
        assert!(
            e.contains("scenes: there is something else in this place; choose another folder"),
            "{e}"
        );
        assert_eq!(std::fs::read(&image).unwrap(), first);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
        assert!(write(&home.path().join("none"), 0, 1, 5, &|_, _| ()).is_err());
        // An empty folder is a fine place.
        let empty = home.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        write(&empty, 1, 1, 5, &|_, _| ()).unwrap();
        assert_eq!(std::fs::read(empty.join("images/train2017/000000000001.jpg")).unwrap(), first);
    }

    #[test]
    fn of_two_that_draw_the_same_at_once_both_have_it() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("scenes");
        let draw = || write(&dir, 2, 1, 5, &|_, _| ());
        // The other one is done while this one draws.
        let other = std::sync::Once::new();
        write(&dir, 2, 1, 5, &|_, _| other.call_once(|| draw().unwrap())).unwrap();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_scene_is_a_function_of_seed_split_and_number() {
        let ids = |seed, split, index| landscape::draw(seed, split, index).ids;
        assert_eq!(ids(1, 0, 3), ids(1, 0, 3));
        for other in [ids(2, 0, 3), ids(1, 1, 3), ids(1, 0, 4)] {
            assert_ne!(ids(1, 0, 3), other);
        }
        let color = |index| landscape::draw(1, 0, index).colors;
        assert!(color(0).iter().flatten().all(|v| (-0.1..=4.0).contains(v)));
    }
}
