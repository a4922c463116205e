//! What was measured before, by cuDNN version, GPU and problem, in one JSON file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::fs::write_atomic;

/// The engine that won, and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Of [`Config`](super::engine::Config).
    pub tag: String,
    pub microseconds: f32,
    pub workspace: usize,
}

/// The file, and what it holds. Without a path it lives as long as the process.
#[derive(Default)]
pub struct Cache {
    path: Option<PathBuf>,
    entries: BTreeMap<String, Entry>,
}

impl Cache {
    /// A file that is not there is empty. One that is damaged counts as empty, with a line on stderr.
    pub fn open(path: Option<PathBuf>) -> Self {
        let read = |path: &PathBuf| -> Result<BTreeMap<String, Entry>, String> {
            match std::fs::read(path) {
                Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| e.to_string()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
                Err(e) => Err(e.to_string()),
            }
        };
        let entries = path.as_ref().map_or(Ok(BTreeMap::new()), read).unwrap_or_else(|why| {
            let path = path.as_deref().unwrap_or("".as_ref()).display();
            eprintln!("{path}: the cache of cuDNN engines is not readable ({why}): engines are measured again");
            BTreeMap::new()
        });
        Cache { path, entries }
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Adds, and writes the file. Where it cannot be written it is given up with a line on stderr: a run needs no cache.
    pub fn put(&mut self, key: String, entry: Entry) {
        self.entries.insert(key, entry);
        let Some(path) = &self.path else { return };
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .map_err(|e| crate::base::Error::io(path, e))
            .and_then(|()| {
                write_atomic(path, |out| serde_json::to_writer_pretty(out, &self.entries).map_err(Into::into))
            });
        if let Err(e) = written {
            eprintln!("the cache of cuDNN engines is not kept: {e}");
            self.path = None;
        }
    }
}
