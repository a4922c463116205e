//! All pictures of a data set, decoded once: u8 (N, S, S, 3), in memory or, above a budget, in a temporary file.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::transform::Fit;
use super::{Dataset, IGNORE, Item, Progress, Taxonomy, decode, transform};
use crate::base::rng::{Rng, Stream};
use crate::base::{Error, Result, stop};

/// How to load a data set.
pub struct Load<'a> {
    /// S, the side of the stored pictures in pixels.
    pub size: usize,
    /// How a picture of any shape becomes a square.
    pub fit: Fit,
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
    /// (width, height) of each item's picture, before it became a square.
    pub sizes: Vec<(usize, usize)>,
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

/// Pictures, with labels or without.
pub enum PictureSet {
    Labelled(Box<EvalStore>),
    Plain(ImageStore),
}

impl PictureSet {
    pub fn images(&self) -> &ImageStore {
        match self {
            PictureSet::Labelled(set) => &set.images,
            PictureSet::Plain(images) => images,
        }
    }

    /// Classes of its labels; 0 where there are none.
    pub fn classes(&self) -> usize {
        match self {
            PictureSet::Labelled(set) => set.taxonomy.classes.len(),
            PictureSet::Plain(_) => 0,
        }
    }
}

impl ImageStore {
    /// Decodes on all cores and applies the base transform (see `transform`). Labels are not looked at.
    ///
    /// Errors: no picture can be read (or, when strict, the first that cannot), no memory, no space for the file.
    pub fn load(dataset: &Dataset, load: &Load) -> Result<Self> {
        fill(dataset, load, 3, &|item, out| picture(item, load, out))
    }

    /// `images` pictures of `size`² random pixels, in memory: for measuring where no pictures are at hand.
    pub fn noise(images: usize, size: usize, seed: u64) -> Self {
        let bytes = 3 * size * size;
        let mut memory = vec![0; images * bytes];
        memory.par_chunks_exact_mut(bytes.max(1)).enumerate().for_each(|(i, picture)| {
            let mut rng = Rng::new(seed, Stream::Other, i as u32, 0);
            picture.chunks_mut(4).for_each(|p| p.copy_from_slice(&rng.u32().to_le_bytes()[..p.len()]));
        });
        let item = |i| Item { id: format!("noise-{i}"), image: PathBuf::new(), label: None };
        ImageStore {
            items: (0..images).map(item).collect(),
            sizes: vec![(size, size); images],
            skipped: Vec::new(),
            size,
            records: Records { bytes, place: Place::Memory(memory) },
        }
    }

    /// A hash (FNV-1a) of the items' names, in order.
    pub fn fingerprint(&self) -> u64 {
        let bytes = self.items.iter().flat_map(|item| item.id.bytes().chain([0]));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    /// N.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of memory that they take.
    pub fn memory(&self) -> usize {
        match &self.records.place {
            Place::Memory(memory) => memory.len(),
            Place::File { .. } => 0,
        }
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
    /// another size than its picture's, upright or as stored, that cannot be read or with a value the taxonomy does not know is always an error, since scores would
    /// mean something else.
    pub fn load(dataset: &Dataset, load: &Load) -> Result<Self> {
        let Some(taxonomy) = &dataset.taxonomy else {
            return Err(Error::file(
                &dataset.root,
                "a plain folder of images has no labels to compare with",
                "give a data set in the layout of COCO-Stuff, Cityscapes or Potsdam",
            ));
        };
        let pair = |item: &Item, out: &mut [u8]| -> Outcome {
            let (pixels, classes) = out.split_at_mut(3 * load.size * load.size);
            let Some(path) = &item.label else {
                return Ok(Err(Error::file(
                    &item.image,
                    "no label map for this image",
                    "add it, or do without the image",
                )));
            };
            let image = match decode::rgb_of_label(&item.image, path) {
                Ok(image) => image,
                Err(why) => return Ok(Err(why)),
            };
            let map = taxonomy.read(path)?;
            if (map.width, map.height) != (image.width, image.height) {
                let (w, h, iw, ih) = (map.width, map.height, image.width, image.height);
                let what = format!("the label map is {w} × {h} but its image {} is {iw} × {ih}", item.image.display());
                return Err(Error::file(path, what, "make them the same size, label maps by nearest neighbour"));
            }
            transform::image(&image, load.size, load.fit, pixels);
            transform::label(&map, load.size, load.fit, classes);
            Ok(Ok((image.width, image.height)))
        };
        Ok(EvalStore { images: fill(dataset, load, 4, &pair)?, taxonomy: taxonomy.clone() })
    }

    /// How many classes some pixel has.
    pub fn occurring(&self) -> Result<usize> {
        let mut occurs = [false; 256];
        let mut classes = vec![IGNORE; self.images.size * self.images.size];
        for i in 0..self.images.len() as u32 {
            stop::check()?;
            self.gather_labels(&[i], &mut classes)?;
            classes.iter().for_each(|&class| occurs[usize::from(class)] = true);
        }
        Ok(occurs[..usize::from(IGNORE)].iter().filter(|&&occurs| occurs).count())
    }

    /// Copies the classes (or `IGNORE`) of pictures `index`, each below N, to `out`, u8 (index.len(), S, S).
    pub fn gather_labels(&self, index: &[u32], out: &mut [u8]) -> Result<()> {
        let area = self.images.size * self.images.size;
        self.images.records.gather(index, 3 * area..4 * area, out)
    }
}

/// Ok(Ok((width, height))): the record is filled from a picture of this size. Ok(Err(why)): the picture cannot be used. Err: stop.
type Outcome = Result<Result<(usize, usize)>>;

fn picture(item: &Item, load: &Load, out: &mut [u8]) -> Outcome {
    Ok(decode::rgb(&item.image).map(|image| {
        transform::image(&image, load.size, load.fit, out);
        (image.width, image.height)
    }))
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
    let (mut items, mut sizes, mut skipped) = (Vec::with_capacity(total), Vec::with_capacity(total), Vec::new());
    let done = AtomicUsize::new(0);
    for part in dataset.items.chunks(chunk) {
        let outcomes: Vec<Outcome> = (part.par_iter().zip(buffer.par_chunks_exact_mut(bytes)))
            .map(|(item, out)| {
                stop::check()?;
                let outcome = decode(item, out);
                (load.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                outcome
            })
            .collect();
        for ((item, outcome), record) in part.iter().zip(outcomes).zip(buffer.chunks_exact(bytes)) {
            match outcome? {
                Ok(size) => {
                    records.push(record)?;
                    items.push(item.clone());
                    sizes.push(size);
                }
                Err(why) if load.strict => return Err(why),
                Err(why) => skipped.push(why),
            }
        }
    }
    match skipped.first() {
        Some(first) if items.is_empty() => Err(Error::file(
            &dataset.root,
            format!("none of the {total} images can be used; the first: {first}"),
            "check them",
        )),
        _ => Ok(ImageStore { items, sizes, skipped, size: load.size, records }),
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
mod tests;
