//! All pictures of a data set, decoded once: u8 (N, S, S, 3), in memory or, above a budget, in a
//! file.
//!
//! ```text
//! fill      the kept set where there is one, else every picture decoded
//! records   decoding on all cores; what is decoded, in memory or in a file
//! kept      the file of a set that is kept for the next start
//! key       what a kept set was made from
//! checksum  tells whether a kept set is damaged
//! ```

mod checksum;
mod fill;
pub mod kept;
mod key;
mod records;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use self::fill::fill;
use self::records::{Outcome, Part, Place, Records};
use super::dataset::Dataset;
use super::decode;
use super::files::{Item, OnProgress};
use super::labels::{IGNORE, Taxonomy};
use super::layouts;
use super::transform::{self, Fit, Square};
use serde::{Deserialize, Serialize};

use crate::base::rng::{Rng, Stream};
use crate::base::{Error, Result, stop};

/// How to load a data set.
pub struct Load<'a> {
    /// What every picture becomes.
    pub square: Square,
    /// The most bytes to keep in memory; a larger store goes to a file.
    pub budget: u64,
    /// The folder for that file, made if need be. A file that is not to be kept has no name and is
    /// gone when the process ends, however it ends.
    pub cache: &'a Path,
    /// A set whose image files (and label maps, where they are read) have at least so many bytes
    /// together is kept in a file in `cache` for the next start, and read from there, through the
    /// system's own cache of files, whatever the budget. None: nothing is kept, nor is what was
    /// kept used.
    pub keep: Option<u64>,
    /// A picture that cannot be used is an error instead of being left out.
    pub strict: bool,
    /// Pictures are turned upright as their EXIF orientation says.
    pub exif: bool,
    /// Called with (done, total) pictures.
    pub on_progress: OnProgress<'a>,
}

/// Pictures, u8 (N, S, S, 3).
pub struct ImageStore {
    /// The N items in the order of the data set, without those left out.
    pub items: Vec<Item>,
    /// (width, height) of each item's picture, before it became a square.
    pub sizes: Vec<(usize, usize)>,
    /// The reason for each picture that was left out, in order; each names its file.
    pub skipped: Vec<Error>,
    /// The file that the set is kept in, if any.
    pub kept: Option<Kept>,
    /// Lines for the user on what did not go as it should: why a set was not kept, or why a kept
    /// one could not be used.
    pub notes: Vec<String>,
    /// What every picture became.
    pub square: Square,
    records: Records,
}

/// What tells one set of pictures from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub images: usize,
    /// A hash (FNV-1a) of the items' names, in order.
    #[serde(rename = "fingerprint")]
    pub names: u64,
    /// A checksum of all pictures as they are stored. Checkpoints of older versions have none.
    #[serde(default)]
    pub content: Option<u64>,
}

impl Fingerprint {
    /// Whether the sets have the same names in the same order, whatever the pictures are now.
    pub fn same_names(&self, other: &Fingerprint) -> bool {
        (self.images, self.names) == (other.images, other.names)
    }
}

/// Where a set is kept for the next start.
pub struct Kept {
    pub path: PathBuf,
    /// True where the file was there at this start already, so that nothing was decoded.
    pub reused: bool,
}

/// Pictures u8 (N, S, S, 3) with their classes u8 (N, S, S): a picture left out takes its label map
/// with it.
pub struct EvalStore {
    pub images: ImageStore,
    pub taxonomy: Taxonomy,
}

/// Pictures, with labels or without.
#[allow(clippy::large_enum_variant)] // There are two of them in a process.
pub enum PictureSet {
    Labelled(EvalStore),
    Plain(ImageStore),
}

impl PictureSet {
    /// The pictures, whether they have labels or not.
    pub fn images(&self) -> &ImageStore {
        match self {
            PictureSet::Labelled(set) => &set.images,
            PictureSet::Plain(images) => images,
        }
    }

    /// The number of classes that labels are read as; 0 where there are no labels.
    pub fn classes(&self) -> usize {
        match self {
            PictureSet::Labelled(set) => set.taxonomy.classes.len(),
            PictureSet::Plain(_) => 0,
        }
    }
}

impl ImageStore {
    /// Decodes on all cores and applies the base transform (see `transform`). Labels are not looked
    /// at.
    ///
    /// Errors: no picture can be read (or, when strict, the first that cannot), no memory, no space
    /// for the file.
    pub fn load(dataset: &Dataset, load: &Load) -> Result<Self> {
        fill(dataset, load, 3, &|item, out| picture(item, load, out))
    }

    /// Makes `images` pictures of `size`² random pixels, in memory: for measuring where no pictures
    /// are at hand.
    pub fn noise(images: usize, size: usize, seed: u64) -> Self {
        let bytes = 3 * size * size;
        let picture = |i| {
            let (mut rng, mut picture) =
                (Rng::new(seed, Stream::Other, i as u32, 0), vec![0; bytes]);
            picture
                .chunks_mut(4)
                .for_each(|p| p.copy_from_slice(&rng.u32().to_le_bytes()[..p.len()]));
            picture.into_boxed_slice()
        };
        let memory = (0..images).into_par_iter().map(picture).collect();
        Self::made("noise", images, size, Place::Memory(memory))
    }

    /// `images` black pictures of `size`², which take no memory: for an engine that does not look
    /// at them.
    pub fn black(images: usize, size: usize) -> Self {
        Self::made("black", images, size, Place::Nowhere)
    }

    /// Pictures that were not decoded from files.
    fn made(name: &str, images: usize, size: usize, place: Place) -> Self {
        let item = |i| Item { id: format!("{name}-{i}"), image: PathBuf::new(), label: None };
        ImageStore {
            items: (0..images).map(item).collect(),
            sizes: vec![(size, size); images],
            skipped: Vec::new(),
            kept: None,
            notes: Vec::new(),
            square: Square::new(size, Fit::default()),
            records: Records::new(size, place),
        }
    }

    /// What tells this set of pictures from others.
    pub fn fingerprint(&self) -> Fingerprint {
        let bytes = self.items.iter().flat_map(|item| item.id.bytes().chain([0]));
        let names = bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Fingerprint { images: self.items.len(), names, content: self.records.content() }
    }

    /// The number of pictures, N.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The bytes of memory that the pictures take; 0 where they lie in a file.
    pub fn memory(&self) -> usize {
        self.records.memory()
    }

    /// The side of the stored pictures in pixels, S.
    pub fn size(&self) -> usize {
        self.square.side
    }

    /// Copies pictures `index`, each below N, to `out`, u8 (index.len(), S, S, 3).
    pub fn gather(&self, index: &[u32], out: &mut [u8]) -> Result<()> {
        self.records.gather(index, Part::Pixels, out)
    }
}

impl EvalStore {
    /// Decodes as [`ImageStore::load`] does, with label maps. A picture without one is left out too
    /// (an error when strict); a label map of another size than its picture's, upright or as
    /// stored, that cannot be read or with a value the taxonomy does not know is always an error,
    /// since scores would mean something else.
    pub fn load(dataset: &Dataset, load: &Load) -> Result<Self> {
        let Some(taxonomy) = &dataset.taxonomy else {
            let what = match dataset.layout.has_labels() {
                true => "there are no label maps that can be compared with",
                false => "a plain folder of images has no labels to compare with",
            };
            return Err(Error::file(
                &dataset.root,
                what,
                format!("give a data set in the layout of {}", layouts::labelled()),
            ));
        };
        let pair = |item: &Item, out: &mut [u8]| -> Outcome {
            let (pixels, classes) = out.split_at_mut(3 * load.square.side * load.square.side);
            let Some(path) = &item.label else {
                return Ok(Err(Error::file(
                    &item.image,
                    "no label map for this image",
                    "add it, or do without the image",
                )));
            };
            let image = match item.picture(load.exif) {
                Ok(image) => image,
                Err(why) => return Ok(Err(why)),
            };
            let map = taxonomy.read(path)?;
            if (map.width, map.height) != (image.width, image.height) {
                let (w, h, iw, ih) = (map.width, map.height, image.width, image.height);
                let mut what = format!(
                    "the label map is {w} × {h} but its image {} is {iw} × {ih}",
                    item.image.display()
                );
                let mut remedy = "make them the same size, label maps by nearest neighbor";
                if (w, h) == (ih, iw) {
                    what += ": one of them is turned by a quarter";
                    let upright = decode::size(&item.image, true).is_ok_and(|size| size == (w, h));
                    remedy = if upright { "leave out --no-exif" } else { "turn one of them" };
                }
                return Err(Error::file(path, what, remedy));
            }
            transform::image(&image, load.square, pixels);
            transform::label(&map, load.square, classes);
            Ok(Ok((image.width, image.height)))
        };
        Ok(EvalStore { images: fill(dataset, load, 4, &pair)?, taxonomy: taxonomy.clone() })
    }

    /// Counts the classes that some pixel of the labels has.
    pub fn occurring(&self) -> Result<usize> {
        let mut occurs = [false; 256];
        let mut classes = vec![IGNORE; self.images.size().pow(2)];
        for i in 0..self.images.len() as u32 {
            stop::check()?;
            self.gather_labels(&[i], &mut classes)?;
            classes.iter().for_each(|&class| occurs[usize::from(class)] = true);
        }
        Ok(occurs[..usize::from(IGNORE)].iter().filter(|&&occurs| occurs).count())
    }

    /// Copies the classes (or `IGNORE`) of pictures `index`, each below N, to `out`, u8
    /// (index.len(), S, S).
    pub fn gather_labels(&self, index: &[u32], out: &mut [u8]) -> Result<()> {
        self.images.records.gather(index, Part::Classes, out)
    }
}

/// Decodes one picture into its record.
fn picture(item: &Item, load: &Load, out: &mut [u8]) -> Outcome {
    Ok(item.picture(load.exif).map(|image| {
        transform::image(&image, load.square, out);
        (image.width, image.height)
    }))
}
