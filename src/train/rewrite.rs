//! Changes to the checkpoint of a run that need no training: what its clusters are called, and
//! other clusters of the same network.

use std::path::Path;

use crate::base::{Error, Result};
use crate::eval::Segment;
use crate::net::FEATURES;
use crate::net::weights::{self, Tensor, Weights};
use crate::recipe::{ClassifierKind, Recipe};
use crate::train::Trained;
use crate::train::checkpoint::State;

/// The text of a checkpoint, and the state in it. Fails on a file of the released code, which has
/// none.
fn state_of<'a>(path: &Path, file: &'a mut Weights) -> Result<(&'a mut String, State)> {
    let text = file.metadata.get_mut("picie").ok_or_else(|| {
        let what = "a checkpoint of the released code, which says nothing of its clusters";
        Error::file(path, what, "use a checkpoint of picie")
    })?;
    let state = serde_json::from_str(text);
    let state = state.map_err(|e| Error::file(path, e, "try again: the file has changed"))?;
    Ok((text, state))
}

/// Calls clusters of a checkpoint by these names, or by none, and writes the file, whole or not at
/// all; nothing else in it changes. Returns what all clusters are called. Without `names` nothing
/// is written. Fails if there is no such cluster, or if the file is of the released code, which has
/// no place for names.
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
        let (text, state) = state_of(path, &mut file)?;
        let state = State { segments: segments.clone(), ..state };
        *text = serde_json::to_string(&state).expect("a state is plain data");
        weights::write(path, &file)?;
    }
    Ok(segments)
}

/// Writes a checkpoint `to` that has the network of the one at `path` and other centroids
/// (clusters, FEATURES). It can be evaluated, and not be resumed. Fails if the file is of the
/// released code.
pub fn save_centroids(
    path: &Path,
    to: &Path,
    centroids: Vec<f32>,
    segments: Vec<Segment>,
) -> Result<()> {
    let mut file = weights::read(path)?;
    let (text, state) = state_of(path, &mut file)?;
    let clusters = segments.len();
    let classifier = match state.recipe.classifier {
        // MDC's layer was learned for the clusters of before.
        ClassifierKind::Parametric => ClassifierKind::Centroids,
        other => other,
    };
    let recipe = Recipe { clusters, auxiliary: 0, classifier, ..state.recipe };
    let network = crate::net::expected(recipe.architecture);
    let state = State { recipe, segments, ..state };
    *text = serde_json::to_string(&state).expect("a state is plain data");
    file.tensors.retain(|name, _| network.iter().any(|(known, _)| known == name));
    let centroids = Tensor::from_f32(vec![clusters, FEATURES, 1, 1], centroids);
    file.tensors.insert("classifier1.weight".into(), centroids);
    weights::write(to, &file)
}
