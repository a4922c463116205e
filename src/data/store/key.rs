//! What a kept set was made from: two sets with the same key have the same records.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Load;
use crate::data::dataset::Dataset;
use crate::data::decode;

/// The folder of kept sets in the user's cache folder.
pub const FOLDER: &str = "sets";

/// The version of records. It is counted up when decoding or the transform to a square gives other
/// bytes than before, or when the file is arranged in another way.
const VERSION: &str = concat!("picie set 2, picie ", env!("CARGO_PKG_VERSION"));

/// The identity of a kept set.
pub struct Key {
    /// A hash of everything that records depend on: names, sizes and times of the files, and what
    /// is made of them.
    pub digest: [u8; 32],
    /// The file that the set is kept in: named as the data set's folder, and by the digest's
    /// beginning.
    pub path: PathBuf,
    /// The bytes of the set's files together; decoding takes time in proportion.
    pub source: u64,
}

impl Key {
    /// Makes the key of records with `planes` planes; None where the folder cannot be found.
    ///
    /// NOTE: taken before anything is decoded: a file that changes meanwhile has another key at the
    /// next start.
    pub fn of(dataset: &Dataset, load: &Load, planes: usize) -> Option<Self> {
        let root = dataset.root.canonicalize().ok()?;
        let labelled = planes > 3;
        let mut hash = Sha256::new();
        // Labels are kept as the classes that the taxonomy reads them as.
        let taxonomy = dataset.taxonomy.as_ref().filter(|_| labelled);
        let what = format!(
            "{VERSION}\n{} {:?} {planes} {taxonomy:?} {}\n",
            load.square.side, load.square.fit, load.exif
        );
        hash.update(what);
        text(&mut hash, &root);
        let stats: Vec<[Option<Metadata>; 2]> = (dataset.items.par_iter())
            .map(|item| {
                let label = item.label.as_deref().filter(|_| labelled);
                // A file that is not there is known by that.
                [Some(item.image.as_path()), label]
                    .map(|path| path.and_then(|path| path.metadata().ok()))
            })
            .collect();
        // Whether an image is turned depends on the size of its label map, read or not.
        let sizes: Vec<Option<(usize, usize)>> = (dataset.items.par_iter())
            .filter(|_| load.exif && !labelled)
            .map(|item| item.label.as_deref().and_then(decode::dimensions))
            .collect();
        hash.update(format!("{sizes:?}"));
        let mut source = 0;
        for (item, stats) in dataset.items.iter().zip(stats) {
            for (path, stat) in
                [Some(&item.image), item.label.as_ref().filter(|_| labelled)].into_iter().zip(stats)
            {
                text(
                    &mut hash,
                    path.map_or(Path::new(""), |path| {
                        path.strip_prefix(&dataset.root).unwrap_or(path)
                    }),
                );
                let Some(stat) = stat else { continue };
                source += stat.len();
                // The time of the last change of the file or its rights tells of contents that were
                // put back to an older time.
                let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()];
                hash.update(stat.len().to_le_bytes());
                times.iter().for_each(|time| hash.update(time.to_le_bytes()));
            }
        }
        let digest: [u8; 32] = hash.finalize().into();
        let folder = root.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let folder: String = folder.chars().map(plain).take(40).collect();
        let start: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = load.cache.join(FOLDER).join(format!("{folder}-{start}.picie"));
        Some(Key { digest, path, source })
    }
}

/// Hashes a path; the zero behind it ends it, as no path holds one.
fn text(hash: &mut Sha256, path: &Path) {
    hash.update(path.as_os_str().as_bytes());
    hash.update([0]);
}
