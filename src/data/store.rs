//! All pictures of a data set, decoded once: u8 (N, S, S, 3), in memory or, above a budget, in a temporary file.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::{Dataset, IGNORE, Item, Progress, Taxonomy, decode, transform};
use crate::base::{Error, Result};

/// How to load a data set.
pub struct Load<'a> {
    /// S, the side of the stored pictures in pixels.
    pub size: usize,
    /// The most bytes to keep in memory; a larger store goes to a file.
    pub budget: u64,
    /// The folder for that file, made if need be. The file has no name and is gone when the process ends, however it ends.
    pub cache: &'a Path,
    /// A picture that cannot be used is an error instead of being left out.
    pub strict: bool,
    /// Told (done, total) pictures.
    pub progress: Progress<'a>,
}

/// Pictures, u8 (N, S, S, 3).
pub struct ImageStore {
    /// N items in the order of the data set, without those left out.
    pub items: Vec<Item>,
    /// Why each picture that was left out was, in order; an error names its file.
    pub skipped: Vec<Error>,
    size: usize,
    records: Records,
}

/// Pictures u8 (N, S, S, 3) with their classes u8 (N, S, S): a picture left out takes its label map with it.
pub struct EvalStore {
    pub images: ImageStore,
    pub taxonomy: Taxonomy,
}

impl ImageStore {
    /// Decodes on all cores and applies the base transform (see `transform`). Labels are not looked at.
    ///
    /// Errors: no picture can be read (or, when strict, the first that cannot), no memory, no space for the file.
    pub fn load(dataset: &Dataset, load: &Load) -> Result<Self> {
        fill(dataset, load, 3, &|item, out| picture(item, load.size, out))
    }

    /// N.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// S.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies pictures `index`, each below N, to `out`, u8 (index.len(), S, S, 3).
    pub fn gather(&self, index: &[u32], out: &mut [u8]) -> Result<()> {
        self.records.gather(index, 0..3 * self.size * self.size, out)
    }
}

impl EvalStore {
    /// As `ImageStore::load`, with label maps. A picture without one is left out too (an error when strict); a label map of
    /// another size, that cannot be read or with a value the taxonomy does not know is always an error, since scores would
    /// mean something else.
    pub fn load(dataset: &Dataset, load: &Load) -> Result<Self> {
        let Some(taxonomy) = &dataset.taxonomy else {
            return Err(Error::file(
                &dataset.root,
                "a plain folder of images has no labels to compare with",
                "give a data set in the layout of COCO-Stuff or Cityscapes",
            ));
        };
        let pair = |item: &Item, out: &mut [u8]| -> Outcome {
            let (pixels, classes) = out.split_at_mut(3 * load.size * load.size);
            let Some(path) = &item.label else {
                return Ok(Some(Error::file(
                    &item.image,
                    "no label map for this image",
                    "add it, or do without the image",
                )));
            };
            let image = match decode::rgb(&item.image) {
                Ok(image) => image,
                Err(why) => return Ok(Some(why)),
            };
            let mut map = decode::label(path)?;
            if (map.width, map.height) != (image.width, image.height) {
                let (w, h, iw, ih) = (map.width, map.height, image.width, image.height);
                let what = format!("the label map is {w} × {h} but its image {} is {iw} × {ih}", item.image.display());
                return Err(Error::file(path, what, "make them the same size, label maps by nearest neighbour"));
            }
            taxonomy.classify(path, &mut map.ids)?;
            transform::image(&image, load.size, pixels);
            transform::label(&map, load.size, classes);
            Ok(None)
        };
        Ok(EvalStore { images: fill(dataset, load, 4, &pair)?, taxonomy: taxonomy.clone() })
    }

    /// Whether any pixel has a class.
    pub fn has_classes(&self) -> Result<bool> {
        let mut classes = vec![IGNORE; self.images.size * self.images.size];
        for i in 0..self.images.len() as u32 {
            self.gather_labels(&[i], &mut classes)?;
            if classes.iter().any(|&class| class != IGNORE) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies the classes (or `IGNORE`) of pictures `index`, each below N, to `out`, u8 (index.len(), S, S).
    pub fn gather_labels(&self, index: &[u32], out: &mut [u8]) -> Result<()> {
        let area = self.images.size * self.images.size;
        self.images.records.gather(index, 3 * area..4 * area, out)
    }
}

/// Ok(None): the record is filled. Ok(Some(why)): the picture cannot be used. Err: stop.
type Outcome = Result<Option<Error>>;

fn picture(item: &Item, size: usize, out: &mut [u8]) -> Outcome {
    match decode::rgb(&item.image) {
        Ok(image) => transform::image(&image, size, out),
        Err(why) => return Ok(Some(why)),
    }
    Ok(None)
}

/// One record of `planes` × S × S bytes per item, decoded a chunk at a time: in parallel inside a chunk, kept in item order,
/// so that what is kept and which error comes first do not depend on the threads.
fn fill(
    dataset: &Dataset,
    load: &Load,
    planes: usize,
    decode: &(dyn Fn(&Item, &mut [u8]) -> Outcome + Sync),
) -> Result<ImageStore> {
    let total = dataset.items.len();
    if load.size == 0 || total == 0 {
        return Err(Error::input(
            format!("{total} images of size {} to load", load.size),
            "ask for at least one of each",
        ));
    }
    let bytes = planes * load.size * load.size;
    // About 32 MB, but enough pictures to keep every thread at work.
    let chunk = ((32 << 20) / bytes).max(4 * rayon::current_num_threads()).min(total);
    let mut buffer = vec![0; chunk * bytes];
    let mut records = Records::new(bytes, total, load)?;
    let (mut items, mut skipped) = (Vec::with_capacity(total), Vec::new());
    let done = AtomicUsize::new(0);
    for part in dataset.items.chunks(chunk) {
        let outcomes: Vec<Outcome> = (part.par_iter().zip(buffer.par_chunks_exact_mut(bytes)))
            .map(|(item, out)| {
                let outcome = decode(item, out);
                (load.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                outcome
            })
            .collect();
        for ((item, outcome), record) in part.iter().zip(outcomes).zip(buffer.chunks_exact(bytes)) {
            match outcome? {
                None => {
                    records.push(record)?;
                    items.push(item.clone());
                }
                Some(why) if load.strict => return Err(why),
                Some(why) => skipped.push(why),
            }
        }
    }
    match skipped.first() {
        Some(first) if items.is_empty() => Err(Error::file(
            &dataset.root,
            format!("none of the {total} images can be used; the first: {first}"),
            "check them",
        )),
        _ => Ok(ImageStore { items, skipped, size: load.size, records }),
    }
}

/// Fixed-size records, appended once and read in any order.
struct Records {
    bytes: usize,
    place: Place,
}

enum Place {
    Memory(Vec<u8>),
    // NOTE: read with `pread`, not mapped: no unsafe, and a failing disk is an error instead of a signal.
    File { file: File, folder: PathBuf, written: u64 },
}

impl Records {
    fn new(bytes: usize, count: usize, load: &Load) -> Result<Self> {
        let total = bytes as u64 * count as u64;
        let place = if total <= load.budget {
            let mut memory = Vec::new();
            memory.try_reserve_exact(total as usize).map_err(|_| {
                Error::input(
                    format!("there is no memory for {} MB of pictures", total >> 20),
                    "use a smaller size or budget",
                )
            })?;
            Place::Memory(memory)
        } else {
            let file = std::fs::create_dir_all(load.cache).and_then(|()| tempfile::tempfile_in(load.cache));
            let file = file.map_err(|e| Error::io(load.cache, e))?;
            Place::File { file, folder: load.cache.to_path_buf(), written: 0 }
        };
        Ok(Records { bytes, place })
    }

    fn push(&mut self, record: &[u8]) -> Result<()> {
        match &mut self.place {
            Place::Memory(memory) => memory.extend_from_slice(record),
            Place::File { file, folder, written } => {
                file.write_all_at(record, *written).map_err(|e| Error::io(folder, e))?;
                *written += record.len() as u64;
            }
        }
        Ok(())
    }

    /// Bytes `part` of each record of `index` to `out`, (index.len(), part.len()).
    fn gather(&self, index: &[u32], part: Range<usize>, out: &mut [u8]) -> Result<()> {
        let (got, want) = (out.len(), index.len() * part.len());
        if got != want {
            return Err(Error::Shape { op: "gather", what: "out", got, want });
        }
        out.par_chunks_exact_mut(part.len()).zip(index).try_for_each(|(out, &i)| {
            let at = i as usize * self.bytes + part.start;
            match &self.place {
                Place::Memory(memory) => out.copy_from_slice(&memory[at..at + part.len()]),
                Place::File { file, folder, .. } => {
                    file.read_exact_at(out, at as u64).map_err(|e| Error::io(folder, e))?;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{gradient, touch, write_label};
    use crate::data::{Classes, Kind, open};

    /// A COCO-Stuff folder: `sizes` images a, b, c, … with label maps of 156 (sky) above and 154 (sea) below, right half 255.
    fn coco(sizes: &[(u32, u32)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (i, &(w, h)) in sizes.iter().enumerate() {
            let id = (b'a' + i as u8) as char;
            touch(&dir.path().join(format!("images/val2017/{id}.jpg")));
            // The format is taken from the content: PNG, so that pixels are exact.
            gradient(w, h)
                .save_with_format(dir.path().join(format!("images/val2017/{id}.jpg")), image::ImageFormat::Png)
                .unwrap();
            let id_at = |x: u32, y: u32| if 2 * x >= w { 255 } else { 156 - 2 * u8::from(2 * y >= h) };
            let map: Vec<u8> = (0..h).flat_map(|y| (0..w).map(move |x| id_at(x, y))).collect();
            write_label(&dir.path().join(format!("annotations/val2017/{id}.png")), w as usize, h as usize, &map);
        }
        dir
    }

    fn dataset(root: &Path) -> Dataset {
        open(root, Some(Kind::CocoStuff), "val", Classes::All27, &|_, _| ()).unwrap()
    }

    fn load(root: &Path, budget: u64, strict: bool) -> Load<'_> {
        Load { size: 6, budget, cache: root, strict, progress: &|_, _| () }
    }

    const SIZES: [(u32, u32); 4] = [(6, 6), (13, 9), (5, 7), (40, 6)];

    #[test]
    fn memory_and_file_hold_the_same_pictures_and_labels_in_step() {
        let dir = coco(&SIZES);
        let set = dataset(dir.path());
        let (mut seen, index) = (vec![], [3, 0, 2, 2, 1]);
        for budget in [u64::MAX, 0] {
            let store = EvalStore::load(&set, &load(dir.path(), budget, true)).unwrap();
            assert_eq!((store.images.len(), store.images.size(), store.images.skipped.len()), (4, 6, 0));
            assert_eq!(matches!(store.images.records.place, Place::Memory(_)), budget > 0);
            let (mut x, mut y) = (vec![1; 5 * 108], vec![1; 5 * 36]);
            store.images.gather(&index, &mut x).unwrap();
            store.gather_labels(&index, &mut y).unwrap();
            // Picture 0 is 6 × 6, so it is stored as it is.
            assert_eq!(x[108..216], *gradient(6, 6));
            let want = [[[23u8, 23, 23, IGNORE, IGNORE, IGNORE]; 3], [[26, 26, 26, IGNORE, IGNORE, IGNORE]; 3]];
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
                let load = Load { progress: &count, ..load(dir.path(), 1 << 20, false) };
                ImageStore::load(&dataset(dir.path()), &load).unwrap().gather(&[0, 1, 2, 3], &mut out).unwrap();
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
        assert!(why[0].contains("b.jpg: the file is empty") && why[1].contains("d.jpg") && why.len() == 2, "{why:?}");
        let (mut y, mut c) = (vec![0; 36], vec![0; 36]);
        store.gather_labels(&[1], &mut y).unwrap();
        // Item 1 is "c" now, 5 × 7: the crop starts at row 1 of 8.
        transform::label(&decode::label(&dir.path().join("annotations/val2017/c.png")).unwrap(), 6, &mut c);
        set.taxonomy.as_ref().unwrap().classify(Path::new(""), &mut c).unwrap();
        assert_eq!(y, c);
        let strict = ImageStore::load(&set, &load(dir.path(), 1 << 20, true)).err().unwrap().to_string();
        assert!(strict.contains("b.jpg: the file is empty"), "{strict}");
        for id in ["a", "c"] {
            std::fs::remove_file(dir.path().join(format!("images/val2017/{id}.jpg"))).unwrap();
        }
        let none = ImageStore::load(&set, &load(dir.path(), 1 << 20, false)).err().unwrap().to_string();
        assert!(none.contains("none of the 4 images can be used") && none.contains("a.jpg: no such file"), "{none}");
    }

    #[test]
    fn label_maps_that_are_missing_or_wrong() {
        let dir = coco(&SIZES);
        let label = |id: &str| dir.path().join(format!("annotations/val2017/{id}.png"));
        let fails =
            |strict| EvalStore::load(&dataset(dir.path()), &load(dir.path(), 0, strict)).err().unwrap().to_string();
        std::fs::remove_file(label("b")).unwrap();
        let store = EvalStore::load(&dataset(dir.path()), &load(dir.path(), 0, false)).unwrap();
        assert_eq!(store.images.len(), 3);
        assert!(store.images.skipped[0].to_string().contains("b.jpg: no label map for this image"));
        assert!(fails(true).contains("b.jpg: no label map"));
        // To train, labels do not matter.
        assert_eq!(ImageStore::load(&dataset(dir.path()), &load(dir.path(), 0, true)).unwrap().len(), 4);

        write_label(&label("c"), 7, 5, &[156; 35]);
        let e = fails(false);
        assert!(e.contains("c.png: the label map is 7 × 5 but its image") && e.contains("c.jpg is 5 × 7"), "{e}");
        write_label(&label("c"), 5, 7, &[200; 35]);
        assert!(fails(false).contains("c.png: the label map holds the value 200"));
        touch(&label("c"));
        assert!(fails(false).contains("c.png: the file is empty"));

        let plain = open(dir.path(), Some(Kind::Folder), "val", Classes::All27, &|_, _| ()).unwrap();
        let e = EvalStore::load(&plain, &load(dir.path(), 0, false)).err().unwrap().to_string();
        assert!(e.contains("has no labels"), "{e}");
    }

    #[test]
    fn a_buffer_of_another_size_is_refused() {
        let dir = coco(&SIZES);
        let store = ImageStore::load(&dataset(dir.path()), &load(dir.path(), 0, true)).unwrap();
        let e = store.gather(&[1, 2], &mut [0; 108]).unwrap_err().to_string();
        assert_eq!(e, "gather: out has 108 elements, the contract wants 216");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_says_what_to_do() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut records = Records { bytes: 8, place: Place::File { file, folder: "/cache".into(), written: 0 } };
        let e = records.push(&[0; 8]).unwrap_err().to_string();
        assert!(e.starts_with("/cache: no space left on device; free some space"), "{e}");
    }
}
