//! Fills a store: from its kept set where there is one, else by decoding every picture.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::kept::{self, Contents, Draft, Skipped};
use super::key::Key;
use super::records::{Decode, Decoded, Entry, Filed, Place, Records, Staying, decode_all};
use super::{ImageStore, Kept, Load};
use crate::base::{Error, Result};
use crate::data::dataset::Dataset;
use crate::data::files::Item;
use crate::data::transform::Square;

/// Fills a store with a record of `planes` × S × S bytes for each item that can be used.
pub fn fill(dataset: &Dataset, load: &Load, planes: usize, decode: Decode) -> Result<ImageStore> {
    let (total, bytes) = (dataset.items.len(), planes * load.square.side * load.square.side);
    if bytes == 0 || total == 0 {
        return Err(Error::input(
            format!("{total} images of size {} to load", load.square.side),
            "ask for at least one of each",
        ));
    }
    let key = load
        .keep
        .and_then(|least| Key::of(dataset, load, planes).filter(|key| key.source >= least));
    let Some(key) = key else { return passing(dataset, load, bytes, decode) };
    let mut notes = Vec::new();
    match reuse(dataset, load, &key) {
        Ok(Some(mut store)) if load.strict && !store.skipped.is_empty() => {
            return Err(store.skipped.swap_remove(0));
        }
        Ok(Some(store)) => return Ok(store),
        Ok(None) => (),
        Err(e) => {
            let path = key.path.display();
            notes.push(format!(
                "{path}: these decoded images cannot be used ({e}): they are decoded again"
            ));
        }
    }
    let mut store = match lasting(dataset, load, bytes, decode, &key)? {
        Ok(store) => store,
        Err(why) => {
            notes.push(not_kept(&why));
            passing(dataset, load, bytes, decode)?
        }
    };
    store.notes.splice(..0, notes);
    Ok(store)
}

/// Opens the store that was kept under this key; None where there is none.
fn reuse(dataset: &Dataset, load: &Load, key: &Key) -> std::io::Result<Option<ImageStore>> {
    let Some((file, contents)) = kept::open(key)? else { return Ok(None) };
    let Contents { bytes, entries, sizes, skipped, .. } = contents;
    Ok(Some(ImageStore {
        // The items are those that the key is of.
        items: entries.iter().map(|entry| dataset.items[entry.at as usize].clone()).collect(),
        sizes,
        skipped: skipped.into_iter().map(Error::from).collect(),
        kept: Some(Kept { path: key.path.clone(), reused: true }),
        notes: Vec::new(),
        square: load.square,
        records: Records::new(
            load.square.side,
            Place::File(Box::new(Filed {
                file,
                entries,
                bytes,
                path: key.path.clone(),
                named: true,
            })),
        ),
    }))
}

/// Decodes into a file that is kept. Ok(Err(why)) where nothing can be written there.
fn lasting(
    dataset: &Dataset,
    load: &Load,
    bytes: usize,
    decode: Decode,
    key: &Key,
) -> Result<Result<ImageStore>> {
    let draft = Draft::new(key, bytes as u64 * dataset.items.len() as u64);
    let opened = draft.and_then(|draft| {
        let file = draft.file().try_clone().map_err(|e| Error::io(&key.path, e))?;
        Ok((draft, file))
    });
    let (draft, file) = match opened {
        Ok(opened) => opened,
        Err(why) => return Ok(Err(why)),
    };
    let full = AtomicBool::new(false);
    let put = |i, record| {
        writer(&file, &key.path)(i, record).inspect_err(|_| full.store(true, Ordering::Relaxed))
    };
    let used = match decode_all(&dataset.items, load, bytes, decode, &put) {
        Err(why) if full.load(Ordering::Relaxed) => return Ok(Err(why)),
        decoded => Used::of(dataset, decoded?)?,
    };
    let finished = reasons(&used.skipped).and_then(|skipped| {
        draft.finish(&Contents {
            digest: key.digest,
            root: dataset.root.clone(),
            split: dataset.split.clone(),
            size: load.square.side,
            bytes,
            items: dataset.items.len(),
            entries: used.entries.clone(),
            sizes: used.sizes.clone(),
            skipped,
        })
    });
    // What cannot be kept is still there for this run.
    let place =
        Filed { file, entries: Vec::new(), bytes, path: key.path.clone(), named: finished.is_ok() };
    let notes = finished.as_ref().err().map(not_kept).into_iter().collect();
    let kept = finished.ok().map(|path| Kept { path, reused: false });
    Ok(Ok(ImageStore { kept, notes, ..used.store(load.square, Some(place)) }))
}

/// Decodes into memory or, above the budget, into a file without a name.
fn passing(dataset: &Dataset, load: &Load, bytes: usize, decode: Decode) -> Result<ImageStore> {
    if bytes as u64 * dataset.items.len() as u64 <= load.budget {
        let decoded =
            decode_all(&dataset.items, load, bytes, decode, &|_, record| Ok(Some(record)))?;
        return Ok(Used::of(dataset, decoded)?.store(load.square, None));
    }
    let file = std::fs::create_dir_all(load.cache).and_then(|()| tempfile::tempfile_in(load.cache));
    let file = file.map_err(|e| Error::io(load.cache, e))?;
    let decoded = decode_all(&dataset.items, load, bytes, decode, &writer(&file, load.cache))?;
    let place =
        Filed { file, entries: Vec::new(), bytes, path: load.cache.to_path_buf(), named: false };
    Ok(Used::of(dataset, decoded)?.store(load.square, Some(place)))
}

/// Writes records to their places in a file, which errors call `path`, from any thread.
pub fn writer(file: &File, path: &Path) -> impl Fn(usize, Box<[u8]>) -> Result<Staying> {
    move |i, record| {
        let written = file.write_all_at(&record, i as u64 * record.len() as u64);
        written.map(|()| None).map_err(|e| Error::io(path, e))
    }
}

/// The line for the user where a set cannot be kept.
fn not_kept(why: &Error) -> String {
    format!("the decoded images are not kept for the next start: {why}")
}

/// The items that can be used, and why the others cannot.
struct Used<'a> {
    items: Vec<Item>,
    sizes: Vec<(usize, usize)>,
    entries: Vec<Entry>,
    /// The records that are to stay in memory.
    records: Vec<Box<[u8]>>,
    skipped: Vec<(&'a Item, Error)>,
}

impl<'a> Used<'a> {
    /// Sorts what was decoded. Errors: no picture can be used.
    fn of(dataset: &'a Dataset, decoded: Vec<Result<Decoded>>) -> Result<Self> {
        let (items, sizes, entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut used = Used { items, sizes, entries, records: Vec::new(), skipped: Vec::new() };
        for (item, decoded) in dataset.items.iter().zip(decoded) {
            match decoded {
                Ok(Decoded { size, entry, record }) => {
                    used.items.push(item.clone());
                    used.sizes.push(size);
                    used.entries.push(entry);
                    used.records.extend(record);
                }
                Err(why) => used.skipped.push((item, why)),
            }
        }
        match used.skipped.first() {
            Some((_, first)) if used.items.is_empty() => {
                let what = format!(
                    "none of the {} images can be used; the first: {first}",
                    dataset.items.len()
                );
                Err(Error::file(&dataset.root, what, "check them"))
            }
            _ => Ok(used),
        }
    }

    /// Makes the store, whose records lie in `file` or, without one, in memory.
    fn store(self, square: Square, file: Option<Filed>) -> ImageStore {
        let Used { items, sizes, entries, records, skipped } = self;
        let place = match file {
            Some(file) => Place::File(Box::new(Filed { entries, ..file })),
            None => Place::Memory(records),
        };
        ImageStore {
            items,
            sizes,
            skipped: skipped.into_iter().map(|(_, why)| why).collect(),
            kept: None,
            notes: Vec::new(),
            square,
            records: Records::new(square.side, place),
        }
    }
}

/// Why pictures were left out, as a kept set says it. An error where one of them may well be
/// readable at the next start.
fn reasons(skipped: &[(&Item, Error)]) -> Result<Vec<Skipped>> {
    let reason = |(item, why): &(&Item, Error)| match (why, std::fs::read(&item.image)) {
        (_, Err(e)) if item.image.exists() => Err(Error::io(&item.image, e)),
        (Error::File { path, what, remedy }, _) => {
            Ok(Skipped { path: path.clone(), what: what.clone(), remedy: remedy.clone() })
        }
        (other, _) => Ok(Skipped {
            path: item.image.clone(),
            what: other.to_string(),
            remedy: "check it".into(),
        }),
    };
    skipped.iter().map(reason).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let e = writer(&file, Path::new("/cache"))(0, Box::new([0; 8])).unwrap_err().to_string();
        assert!(e.starts_with("/cache: no space left on device; free some space"), "{e}");
    }
}
