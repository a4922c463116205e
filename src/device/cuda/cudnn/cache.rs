//! What was chosen before, by cuDNN version, GPU and problem, in one JSON file.
//!
//! Several processes may use one file: what each of them adds is merged with what the others wrote
//! in the meantime.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::fs::write_atomic;
use crate::base::{Error, Result, tell};

/// So many entries keep their plan, the newest: those of compiled kernels take tens of kilobytes.
const PLANS: usize = 1000;

/// An engine that was chosen, and what is known of it. Files of older versions have the first three
/// fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Of [`Config`](super::engine::Config). Empty: none was chosen, but some are bad.
    pub tag: String,
    /// None: not measured.
    pub microseconds: Option<f32>,
    pub workspace: usize,
    /// It is the engine of the same problem with so many images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<usize>,
    /// The second best, and its microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<(String, f32)>,
    /// Microseconds of the heuristics' first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<f32>,
    /// What the engine says of its numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Engines that failed on the GPU: they are not tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<String>,
    /// When it was chosen, and under which driver.
    #[serde(default)]
    pub date: String,
    #[serde(default)]
    pub driver: i32,
    /// cuDNN's text of the plan, with the kernel where one was compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Text>,
}

/// A text with its checksum.
///
/// NOTE: cuDNN does not see that a kernel in a plan's text is damaged: it would run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    sha256: String,
    text: String,
}

impl Text {
    pub fn new(text: String) -> Self {
        Text { sha256: digest(&text), text }
    }

    /// None where it is damaged.
    pub fn whole(&self) -> Option<&str> {
        (digest(&self.text) == self.sha256).then_some(&self.text)
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) type Entries = BTreeMap<String, Entry>;

/// The file, and what it holds. Without a path it lives as long as the process.
#[derive(Default)]
pub struct Cache {
    path: Option<PathBuf>,
    entries: Entries,
    /// Keys that the file does not have yet, or other entries of.
    changed: Vec<String>,
}

/// A file that is not there is empty.
pub(super) fn read(path: &Path) -> Result<Entries, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| e.to_string()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Entries::new()),
        Err(e) => Err(e.to_string()),
    }
}

impl Cache {
    /// A file that is damaged counts as empty, with a line on stderr.
    pub fn open(path: Option<PathBuf>) -> Self {
        let entries = path.as_ref().map_or(Ok(Entries::new()), |path| read(path)).unwrap_or_else(|why| {
            let path = path.as_deref().unwrap_or("".as_ref()).display();
            tell(format_args!("{path}: the cache of cuDNN engines is not readable ({why}): engines are chosen again"));
            Entries::new()
        });
        Cache { path, entries, changed: Vec::new() }
    }

    /// What was chosen.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| !entry.tag.is_empty())
    }

    /// Engines not to try.
    pub fn bad(&self, key: &str) -> Vec<String> {
        self.entries.get(key).map_or(Vec::new(), |entry| entry.bad.clone())
    }

    /// Adds to memory; [`Cache::keep`] writes.
    pub fn put(&mut self, key: String, entry: Entry) {
        let bad = self.bad(&key);
        self.entries.insert(key.clone(), Entry { bad, ..entry });
        self.changed.push(key);
    }

    /// Notes that `tag` failed, and forgets it where it was chosen.
    pub fn condemn(&mut self, key: String, tag: &str) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.tag == tag {
            *entry = Entry { bad: std::mem::take(&mut entry.bad), ..Entry::default() };
        }
        entry.bad.push(tag.into());
        self.changed.push(key);
    }

    /// Writes what is new. Where that cannot be done the file is given up with a line on stderr: a
    /// run needs no cache.
    pub fn keep(&mut self) {
        let Some(path) = self.path.as_ref().filter(|_| !self.changed.is_empty()) else { return };
        let written = write(path, &self.entries, &self.changed);
        self.changed.clear();
        if let Err(e) = written {
            tell(format_args!("the cache of cuDNN engines is not kept: {e}"));
            self.path = None;
        }
    }
}

/// Writes the entries of `changed` into the file, which may have others by now.
fn write(path: &Path, entries: &Entries, changed: &[String]) -> Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref());
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    // NOTE: the folder is what is locked, for the file is replaced. Not every file system can: then
    // two processes that write in the same millisecond may lose an entry, which is measured again.
    let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    // A damaged file was told of when it was opened.
    let mut all = read(path).unwrap_or_default();
    all.extend(changed.iter().map(|key| (key.clone(), entries[key].clone())));
    let mut dates: Vec<String> =
        all.values().filter(|e| e.plan.is_some()).map(|e| e.date.clone()).collect();
    if dates.len() > PLANS {
        dates.sort();
        let oldest = dates.swap_remove(dates.len() - PLANS);
        all.values_mut().filter(|entry| entry.date < oldest).for_each(|entry| entry.plan = None);
    }
    let written =
        write_atomic(path, |out| serde_json::to_writer_pretty(out, &all).map_err(Into::into));
    drop(lock);
    written
}
