//! Sets that are kept in the user's cache folder from one start to the next, each in one file that
//! is whole or not there.
//!
//! ```text
//! records   bytes × items of the data set; those of pictures that cannot be used are holes
//! JSON      Contents
//! 24 bytes  length and checksum of the JSON, "picieset"
//! ```
//!
//! NOTE: a file is renamed when it is complete, but not synced: a power cut may still cut it. Its
//! length and checksums tell, and then it is made anew; syncing 61 GB would make everybody wait.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::checksum::{checksum, damaged};
use super::key::Key;
use super::records::Entry;
use crate::base::fs::{Listed, UNFINISHED, listed, remove_abandoned};
use crate::base::{Error, Result};

pub use super::key::FOLDER;

const EXTENSION: &str = "picie";
const MAGIC: u64 = u64::from_le_bytes(*b"picieset");
const TAIL: u64 = 24;

/// What a kept file says of itself.
#[derive(Serialize, Deserialize)]
pub struct Contents {
    /// The hash of what the set was made from (see `Key`).
    pub digest: [u8; 32],
    /// The folder, the split, and the side of the stored pictures.
    pub root: PathBuf,
    pub split: String,
    pub size: usize,
    /// The bytes of a record, and the number of records that there is room for.
    pub bytes: usize,
    pub items: usize,
    /// The record of each picture that can be used, in order, and its (width, height).
    pub entries: Vec<Entry>,
    pub sizes: Vec<(usize, usize)>,
    /// Why the other pictures cannot be used.
    pub skipped: Vec<Skipped>,
}

/// Why a picture of a kept set was left out: the fields of the error that said so.
#[derive(Serialize, Deserialize)]
pub struct Skipped {
    pub path: PathBuf,
    pub what: String,
    pub remedy: String,
}

impl From<Skipped> for Error {
    fn from(Skipped { path, what, remedy }: Skipped) -> Self {
        Error::File { path, what, remedy }
    }
}

impl Contents {
    /// The bytes of all records together.
    fn records(&self) -> u64 {
        self.bytes as u64 * self.items as u64
    }

    /// Reads the contents of a kept file, but none of its records.
    fn read(file: &File) -> std::io::Result<Self> {
        let length = file.metadata()?.len();
        let at = length.checked_sub(TAIL).ok_or_else(|| damaged("it ends early"))?;
        let mut tail = [0; TAIL as usize];
        file.read_exact_at(&mut tail, at)?;
        let [bytes, sum, magic] =
            [0, 8, 16].map(|i| u64::from_le_bytes(tail[i..i + 8].try_into().expect("eight bytes")));
        let start = at
            .checked_sub(bytes)
            .filter(|_| magic == MAGIC)
            .ok_or_else(|| damaged("it ends early"))?;
        let mut json = vec![0; bytes as usize];
        file.read_exact_at(&mut json, start)?;
        if checksum(&json) != sum {
            return Err(damaged("its list of images is damaged"));
        }
        let contents: Contents = serde_json::from_slice(&json)?;
        if contents.records() == start { Ok(contents) } else { Err(damaged("records are missing")) }
    }

    /// Writes the contents behind the records of a file.
    fn write(&self, file: &File) -> std::io::Result<()> {
        let json = serde_json::to_vec(self)?;
        let tail = [json.len() as u64, checksum(&json), MAGIC].map(u64::to_le_bytes);
        file.write_all_at(&[&json, tail.as_flattened()].concat(), self.records())
    }
}

/// Opens the kept set of this key; None where there is none.
pub fn open(key: &Key) -> std::io::Result<Option<(File, Contents)>> {
    let file = match File::open(&key.path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let contents = Contents::read(&file)?;
    if contents.digest != key.digest {
        return Err(damaged("it is of another set of images"));
    }
    // Sets that were not used for longest go first when room is needed. Where that cannot be noted,
    // it may be this one.
    let _ = file.set_modified(SystemTime::now());
    Ok(Some((file, contents)))
}

/// A file that is being written. Dropped unfinished, it is gone; a killed process leaves it under a
/// name that no set has.
pub struct Draft {
    temp: NamedTempFile,
    path: PathBuf,
    _listed: Listed,
}

impl Draft {
    /// Starts the file of this key, which will have some `bytes` bytes; older sets make room for
    /// it.
    pub fn new(key: &Key, bytes: u64) -> Result<Self> {
        let folder = key.path.parent().expect("a file in a folder");
        let temp = std::fs::create_dir_all(folder).and_then(|()| {
            remove_abandoned(folder, UNFINISHED);
            let disk = rustix::fs::statvfs(folder)?;
            make_room(folder, bytes, disk.f_bavail * disk.f_frsize)?;
            let (temp, listed) =
                listed(|| tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder))?;
            // Where files cannot be locked no one takes this one for abandoned.
            let _ = temp.as_file().lock();
            Ok((temp, listed))
        });
        let (temp, _listed) = temp.map_err(|e| Error::io(folder, e))?;
        Ok(Draft { temp, path: key.path.clone(), _listed })
    }

    pub fn file(&self) -> &File {
        self.temp.as_file()
    }

    /// Completes the file and gives it its name.
    pub fn finish(self, contents: &Contents) -> Result<PathBuf> {
        contents.write(self.file()).map_err(|e| Error::io(&self.path, e))?;
        let file = self.temp.persist(&self.path).map_err(|e| Error::io(&self.path, e.error))?;
        // Nobody takes it for abandoned any more.
        let _ = file.unlock();
        Ok(self.path)
    }
}

/// Removes the sets in `folder` that were not used for longest until they take, with `wanted` bytes
/// more, no more than half of what the disk, with `free` bytes now, would have free without them.
pub fn make_room(folder: &Path, wanted: u64, free: u64) -> std::io::Result<()> {
    let mut sets = sets(folder);
    let mut taken = sets.iter().map(|set| set.bytes).sum::<u64>();
    let most = (free + taken) / 2;
    if wanted > most {
        let what = format!(
            "they would take {} MiB, more than half of the disk's free space",
            wanted >> 20
        );
        return Err(IoError::new(ErrorKind::StorageFull, what));
    }
    sets.sort_by_key(|set| set.used);
    for set in sets {
        if taken + wanted <= most {
            break;
        }
        match std::fs::remove_file(&set.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            // Another process may have removed it.
            _ => taken -= set.bytes,
        }
    }
    Ok(())
}

/// A kept set as it lies on the disk.
pub struct KeptSet {
    pub path: PathBuf,
    /// The bytes that the set takes on the disk.
    pub bytes: u64,
    /// When the set was last written or used.
    pub used: SystemTime,
}

impl KeptSet {
    /// Reads what the set is. Errors: the file is damaged.
    pub fn contents(&self) -> Result<Contents> {
        File::open(&self.path)
            .and_then(|file| Contents::read(&file))
            .map_err(|e| Error::io(&self.path, e))
    }
}

/// Lists the kept sets in a folder, by name.
pub fn sets(folder: &Path) -> Vec<KeptSet> {
    let entries =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let kept =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    let set = |path: PathBuf| {
        let stat = path.metadata().ok()?;
        Some(KeptSet { bytes: 512 * stat.blocks(), used: stat.modified().ok()?, path })
    };
    let mut sets: Vec<_> = kept.filter_map(set).collect();
    sets.sort_by(|a, b| a.path.cmp(&b.path));
    sets
}
