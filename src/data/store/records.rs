//! Fixed-size records, one a picture: decoded on all cores, kept in memory or in a file, read in
//! any order.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Load;
use super::checksum::{checksum, damaged};
use crate::base::{Error, Result, stop};
use crate::data::files::Item;

/// A part of a record; records are made of these, in this order.
#[derive(Clone, Copy)]
pub enum Part {
    /// The picture, u8 (S, S, 3).
    Pixels,
    /// The class of each pixel, u8 (S, S); only in the records of sets with labels.
    Classes,
}

impl Part {
    /// The bytes of this part in a record of side `size`.
    fn of(self, size: usize) -> Range<usize> {
        let area = size * size;
        match self {
            Part::Pixels => 0..3 * area,
            Part::Classes => 3 * area..4 * area,
        }
    }
}

/// Where a record lies in a file, as a multiple of its size, and a checksum of each part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub at: u32,
    sums: [u64; 2],
}

impl Entry {
    pub fn new(at: u32, record: &[u8], size: usize) -> Self {
        let (pixels, classes) = record.split_at(Part::Pixels.of(size).end);
        Entry { at, sums: [checksum(pixels), checksum(classes)] }
    }
}

/// Records of side `size` in the order of a set's pictures.
pub struct Records {
    size: usize,
    pub place: Place,
}

/// Where records lie.
pub enum Place {
    Memory(Vec<Box<[u8]>>),
    File(Box<Filed>),
    /// There are none: all bytes are 0.
    Nowhere,
}

/// A file with records.
// NOTE: read with `pread`, not mapped: no unsafe, and a failing disk is an error instead of a
// signal.
pub struct Filed {
    pub file: File,
    pub entries: Vec<Entry>,
    /// The bytes of a record.
    pub bytes: usize,
    /// The path that errors name: the file, or the folder of a file without a name.
    pub path: PathBuf,
    /// True where the file has a name, so that it is there for the next start, too.
    pub named: bool,
}

impl Records {
    pub fn new(size: usize, place: Place) -> Self {
        Records { size, place }
    }

    /// The bytes of memory that the records take.
    pub fn memory(&self) -> usize {
        match &self.place {
            Place::Memory(records) => records.iter().map(|record| record.len()).sum(),
            Place::File(_) | Place::Nowhere => 0,
        }
    }

    /// A checksum of all pictures, without their classes; `None` if there are no records.
    pub fn content(&self) -> Option<u64> {
        let pixels = Part::Pixels.of(self.size);
        let sums: Vec<u64> = match &self.place {
            Place::Memory(records) => {
                records.par_iter().map(|record| checksum(&record[pixels.clone()])).collect()
            }
            Place::File(file) => file.entries.iter().map(|entry| entry.sums[0]).collect(),
            Place::Nowhere => return None,
        };
        Some(checksum(bytemuck::cast_slice(&sums)))
    }

    /// Copies `part` of each record of `index` to `out`, (index.len(), bytes of the part).
    pub fn gather(&self, index: &[u32], part: Part, out: &mut [u8]) -> Result<()> {
        let range = part.of(self.size);
        let (got, want) = (out.len(), index.len() * range.len());
        if got != want {
            return Err(Error::Shape { op: "gather", what: "out", got, want });
        }
        out.par_chunks_exact_mut(range.len()).zip(index).try_for_each(|(out, &i)| {
            match &self.place {
                Place::Memory(records) => {
                    out.copy_from_slice(&records[i as usize][range.clone()]);
                    Ok(())
                }
                Place::File(file) => {
                    file.read(i as usize, part, range.start, out).map_err(|e| file.error(e))
                }
                Place::Nowhere => {
                    out.fill(0);
                    Ok(())
                }
            }
        })
    }
}

impl Filed {
    /// Reads `part` of record `i`, which starts at byte `from` of the record.
    fn read(&self, i: usize, part: Part, from: usize, out: &mut [u8]) -> std::io::Result<()> {
        let entry = &self.entries[i];
        self.file.read_exact_at(out, u64::from(entry.at) * self.bytes as u64 + from as u64)?;
        if checksum(out) == entry.sums[part as usize] {
            Ok(())
        } else {
            Err(damaged("an image in it is damaged"))
        }
    }

    /// The error for a read that failed with `e`. A damaged file that the next start would find
    /// again is removed.
    fn error(&self, e: std::io::Error) -> Error {
        if !self.named || ![ErrorKind::InvalidData, ErrorKind::UnexpectedEof].contains(&e.kind()) {
            return Error::io(&self.path, e);
        }
        let _ = std::fs::remove_file(&self.path);
        let remedy = "they are removed: run the same command again, which decodes them again";
        Error::file(&self.path, "these decoded images are damaged", remedy)
    }
}

/// Allocates a record of zeros; None where there is no memory.
fn zeros(bytes: usize) -> Option<Box<[u8]>> {
    let mut record = Vec::new();
    record.try_reserve_exact(bytes).ok()?;
    record.resize(bytes, 0);
    Some(record.into_boxed_slice())
}

/// How it went to fill a record: Ok(Ok((width, height))) from a picture of this size; Ok(Err(why))
/// where the picture cannot be used; Err where everything is to stop.
pub type Outcome = Result<Result<(usize, usize)>>;

/// A function that fills a record from an item.
pub type Decode<'a> = &'a (dyn Fn(&Item, &mut [u8]) -> Outcome + Sync);

/// A picture that can be used: its (width, height), and where its record lies.
pub struct Decoded {
    pub size: (usize, usize),
    pub entry: Entry,
    pub record: Staying,
}

/// A record that is to stay in memory; None where it is written to a file.
pub type Staying = Option<Box<[u8]>>;

/// A function that takes the number of an item and its record, and gives back what is to stay in
/// memory.
pub type Put<'a> = &'a (dyn Fn(usize, Box<[u8]>) -> Result<Staying> + Sync);

/// Decodes each item into a record of `bytes` bytes and hands it to `put`, both on whichever core
/// is free: while some records are written others are decoded. What comes back is in the order of
/// the items; Err in it: the picture cannot be used.
///
/// Errors: of all items that make one (strict: that cannot be used), the first in this order, for
/// any number of threads.
pub fn decode_all(
    items: &[Item],
    load: &Load,
    bytes: usize,
    decode: Decode,
    put: Put,
) -> Result<Vec<Result<Decoded>>> {
    let one = |i: usize, item: &Item| -> Result<Result<Decoded>> {
        stop::check()?;
        let none = || {
            Error::input("there is no memory for the images", "use a smaller size or fewer images")
        };
        let mut record = zeros(bytes).ok_or_else(none)?;
        let size = match decode(item, &mut record)? {
            Ok(size) => size,
            Err(why) if load.strict => return Err(why),
            Err(why) => return Ok(Err(why)),
        };
        let entry = Entry::new(i as u32, &record, load.square.side);
        Ok(Ok(Decoded { size, entry, record: put(i, record)? }))
    };
    // The first item that made an error, so far: those behind it are left, those before it are
    // still looked at.
    let failed = AtomicUsize::new(usize::MAX);
    let done = AtomicUsize::new(0);
    let outcomes: Vec<_> = (items.par_iter().enumerate())
        .filter_map(|(i, item)| {
            if i > failed.load(Ordering::Relaxed) {
                return None;
            }
            let outcome = one(i, item);
            if outcome.is_err() {
                failed.fetch_min(i, Ordering::Relaxed);
            }
            (load.on_progress)(done.fetch_add(1, Ordering::Relaxed) + 1, items.len());
            Some(outcome)
        })
        .collect();
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::transform::{Fit, Square};
    use std::path::Path;

    fn load(strict: bool) -> Load<'static> {
        Load {
            square: Square::new(6, Fit::Crop),
            budget: 0,
            cache: Path::new(""),
            keep: None,
            exif: true,
            strict,
            on_progress: &|_, _| (),
        }
    }

    /// A writer that waits for another one, and for a decoder, waits for nothing where one thread
    /// writes what all have decoded.
    #[test]
    fn records_are_written_by_many_threads_while_others_are_decoded() {
        let item =
            |i| Item { id: String::new(), image: PathBuf::from(format!("{i}")), label: None };
        let items: Vec<Item> = (0..12).map(item).collect();
        let (decoded, writing, most, overlapped) =
            <(AtomicUsize, AtomicUsize, AtomicUsize, AtomicUsize)>::default();
        let decode = |_: &Item, record: &mut [u8]| {
            decoded.fetch_add(1, Ordering::SeqCst);
            record.fill(9);
            Ok(Ok((1, 1)))
        };
        let put = |_: usize, record: Box<[u8]>| {
            assert_eq!(*record, [9; 108]);
            let before = decoded.load(Ordering::SeqCst);
            writing.fetch_add(1, Ordering::SeqCst);
            // Until both were seen, or never will be.
            for _ in 0..400 {
                most.fetch_max(writing.load(Ordering::SeqCst), Ordering::SeqCst);
                overlapped.fetch_max(decoded.load(Ordering::SeqCst) - before, Ordering::SeqCst);
                if most.load(Ordering::SeqCst) > 1 && overlapped.load(Ordering::SeqCst) > 0 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            writing.fetch_sub(1, Ordering::SeqCst);
            Ok(None)
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let all = pool.install(|| decode_all(&items, &load(true), 108, &decode, &put)).unwrap();
        assert!(
            all.into_iter().enumerate().all(|(i, record)| record.unwrap().entry.at as usize == i)
        );
        assert!(most.into_inner() > 1, "one record was written at a time");
        assert!(overlapped.into_inner() > 0, "nothing was decoded while a record was written");
    }

    /// Two fail, the one behind long before the one in front.
    #[test]
    fn the_first_error_by_order_comes_back_whichever_is_met_first() {
        let item =
            |i| Item { id: String::new(), image: PathBuf::from(format!("{i}")), label: None };
        let items: Vec<Item> = (0..200).map(item).collect();
        let decoded = AtomicUsize::new(0);
        let decode = |item: &Item, _: &mut [u8]| {
            decoded.fetch_add(1, Ordering::SeqCst);
            let i: usize = item.image.to_str().unwrap().parse().unwrap();
            if i < 100 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            let why = Error::file(&item.image, "no good", "leave it");
            if i == 60 || i == 150 { Err(why) } else { Ok(Ok((1, 1))) }
        };
        for threads in [1, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let load = load(false);
            let e = pool
                .install(|| decode_all(&items, &load, 108, &decode, &|_, _| Ok(None)))
                .err()
                .unwrap();
            assert_eq!(e.to_string(), "60: no good; leave it", "{threads} threads");
            // One thread stops at once.
            assert!(threads > 1 || decoded.load(Ordering::SeqCst) == 61);
        }
    }
}
