//! PyTorch's checkpoint format since 1.6: a zip archive with `NAME/data.pkl` and one
//! `NAME/data/KEY` per storage.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use super::fault::{Fault, Result};
use super::torch::{Storages, big_endian, collect};
use super::{MAX_BYTES, Weights, pickle, room};

/// Bytes that deflate makes of one at most.
const MOST: u64 = 1032;

pub fn parse(bytes: &[u8]) -> Result<Weights> {
    // NOTE: not looked for, as is the default, which takes some names for a part of what it seeks.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let zip = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(damaged)?;
    let names: Vec<String> =
        zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let folder = |name: &String| name.strip_suffix("data.pkl").map(str::to_string);
    let folder =
        names.iter().filter_map(folder).find(|f| f.is_empty() || f.ends_with('/')).ok_or_else(
            || Fault::unsupported("a zip archive without data.pkl, so no PyTorch checkpoint"),
        )?;
    // Files from before PyTorch 2.1 do not say; their writers were little-endian.
    let says_order = names.contains(&format!("{folder}byteorder"));
    let mut archive = Archive {
        zip,
        folder,
        left: MAX_BYTES.min(MOST * bytes.len() as u64),
        storages: HashMap::new(),
    };
    if says_order && archive.entry("byteorder")? == b"big" {
        return Err(big_endian());
    }
    let object = archive.entry("data.pkl")?;
    collect(&pickle::load(&object)?, &mut archive)
}

struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// "NAME/"
    folder: String,
    /// Bytes that may still be unpacked: a deflated entry can be a thousand times larger than its
    /// file.
    left: u64,
    storages: HashMap<String, Vec<u8>>,
}

impl Archive<'_> {
    fn entry(&mut self, name: &str) -> Result<Vec<u8>> {
        let entry = self.zip.by_name(&format!("{}{name}", self.folder));
        let entry = entry.map_err(|e| Fault::damaged(format!("{name} in the zip archive: {e}")))?;
        let mut bytes = Vec::new();
        // The room for bytes is doubled as they come.
        let most = self.left.min(room() / 2);
        let read = entry.take(most + 1).read_to_end(&mut bytes);
        read.map_err(|e| Fault::damaged(format!("{name} in the zip archive: {e}")))?;
        if bytes.len() as u64 > most {
            return Err(Fault::Large(most));
        }
        self.left -= bytes.len() as u64;
        Ok(bytes)
    }
}

impl Storages for Archive<'_> {
    fn bytes(&mut self, key: &str) -> Result<&[u8]> {
        if !self.storages.contains_key(key) {
            let bytes = self.entry(&format!("data/{key}"))?;
            self.storages.insert(key.to_string(), bytes);
        }
        Ok(&self.storages[key])
    }
}

fn damaged(e: zip::result::ZipError) -> Fault {
    Fault::damaged(format!("the zip archive: {e}"))
}
