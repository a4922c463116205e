//! The names of clusters in a checkpoint, which its user may change.

use std::path::Path;

use crate::base::{Error, Result};
use crate::eval::Segment;
use crate::net::weights;
use crate::train::Trained;
use crate::train::checkpoint::State;

/// Calls clusters of a checkpoint by these names, or by none, and writes the file, whole or not at
/// all; nothing else in it changes. Returns what all clusters are called. Without `names` nothing is
/// written. Fails if there is no such cluster, or if the file is of the released code, which has no
/// place for names.
pub fn rename(path: &Path, names: &[(usize, Option<String>)]) -> Result<Vec<Segment>> {
    let mut segments = Trained::read(path)?.segments;
    for (id, name) in names {
        if *id >= segments.len() {
            let last = segments.len() - 1;
            let what = format!("there is no cluster {id}, only 0 to {last}");
            return Err(Error::file(path, what, "list them: leave out the names"));
        }
        Segment::rename(&mut segments, *id, name.clone());
    }
    if !names.is_empty() {
        let mut file = weights::read(path)?;
        let text = file.metadata.get_mut("picie").ok_or_else(|| {
            let what = "a checkpoint of the released code, which has no place for names";
            Error::file(path, what, "name the clusters of a checkpoint of picie")
        })?;
        let state: State = serde_json::from_str(text)
            .map_err(|e| Error::file(path, e, "try again: the file has changed"))?;
        let state = State { segments: segments.clone(), ..state };
        *text = serde_json::to_string(&state).expect("a state is plain data");
        weights::write(path, &file)?;
    }
    Ok(segments)
}
