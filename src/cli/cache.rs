//! `picie cache` lists what lies in the user's cache folder, or removes it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::base::fs::{UNFINISHED, remove_abandoned, taken};
use crate::base::{Error, Result};
use crate::cli::args::CacheArgs;
use crate::cli::paths::{cache, text};
use crate::cli::say;
use crate::data::kept::{self, KeptSet};
use crate::data::scenes;

/// Runs the command: lists the folder, or clears it.
pub fn run(args: &CacheArgs) -> Result<()> {
    let folder = cache();
    let sets = kept::sets(&folder.join(kept::FOLDER));
    if args.clear {
        let freed = clear(&folder, sets)?;
        return say(if args.json {
            json!({ "dir": text(&folder), "freed": freed }).to_string()
        } else {
            format!("{:.1} MiB freed in {}", mib(freed), folder.display())
        });
    }
    let mut rows: Vec<(u64, PathBuf, Option<String>)> = Vec::new();
    for set in sets {
        let used = humantime::format_rfc3339_seconds(set.used);
        let what = match set.contents() {
            Ok(of) => {
                let images = format!("{} images of {}² pixels", of.entries.len(), of.size);
                format!("{images}, {} ({}), last used {used}", of.root.display(), of.split)
            }
            Err(_) => "damaged".into(),
        };
        rows.push((set.bytes, set.path, Some(what)));
    }
    let others = entries(&folder).into_iter().filter(|path| !path.ends_with(kept::FOLDER));
    rows.extend(others.map(|path| (taken(&path), path, None)));
    let all: u64 = rows.iter().map(|row| row.0).sum();
    if args.json {
        let row = |(bytes, path, what): &(u64, PathBuf, Option<String>)| json!({ "path": text(path), "bytes": bytes, "what": what });
        let entries: Vec<_> = rows.iter().map(row).collect();
        return say(json!({ "dir": text(&folder), "bytes": all, "entries": entries }));
    }
    let mut lines = Vec::new();
    for (bytes, path, what) in &rows {
        let what = what.as_ref().map_or(String::new(), |what| format!(": {what}"));
        lines.push(format!("{:8.1} MiB  {}{what}", mib(*bytes), path.display()));
    }
    lines.push(format!(
        "{:8.1} MiB  in {}; picie cache --clear removes what can be made again",
        mib(all),
        folder.display()
    ));
    say(lines.join("\n"))
}

/// Removes kept sets, what killed writers left of them, and measured engines. Returns the number of
/// bytes that were freed.
fn clear(folder: &Path, sets: Vec<KeptSet>) -> Result<u64> {
    let engines = entries(folder).into_iter().filter(|path| name(path).starts_with("cudnn-"));
    let mut freed = remove_abandoned(&folder.join(kept::FOLDER), UNFINISHED);
    freed += remove_abandoned(folder, scenes::UNFINISHED);
    for path in sets.into_iter().map(|set| set.path).chain(engines) {
        let bytes = taken(&path);
        match std::fs::remove_file(&path) {
            // Another process was faster.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            removed => {
                removed.map_err(|e| Error::io(&path, e))?;
                freed += bytes;
            }
        }
    }
    Ok(freed)
}

/// Lists what lies in a folder, by name; nothing where there is no such folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}
