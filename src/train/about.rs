//! What a file or a run's folder is, for people: `picie info`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::base::{Error, Result};
use crate::eval::Segment;
use crate::net::weights::{self, Origin, Weights};
use crate::net::{Architecture, expected};
use crate::train::checkpoint::State;
use crate::train::run::Settings;

/// Facts by name, the most telling first.
pub type About = Vec<(&'static str, Value)>;

/// What lies at `path`: a run (its folder or its `run.json`), a checkpoint, or weights.
///
/// Errors: it is none of these, or cannot be read.
pub fn about(path: &Path) -> Result<About> {
    let settings = path.join("run.json");
    if path.is_dir() && !settings.is_file() {
        let what = "no folder of a run: it has no run.json";
        return Err(Error::file(path, what, "name a run's folder, a checkpoint or weights"));
    }
    if path.is_dir() {
        return run(&settings);
    }
    if path.extension().is_some_and(|ending| ending == "json") {
        return run(path);
    }
    let file = weights::read(path)?;
    match file.metadata.get("picie").map(|text| serde_json::from_str::<State>(text)) {
        Some(Ok(state)) => Ok(checkpoint(&file, state)),
        _ => foreign(path, file),
    }
}

fn run(path: &Path) -> Result<About> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let wrong = |e| Error::file(path, format!("not the settings of a run ({e})"), "name a run's");
    let settings: Settings = serde_json::from_str(&text).map_err(wrong)?;
    let all: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let metrics = std::fs::read_to_string(path.with_file_name("metrics.jsonl"));
    let done = metrics.map_or(0, |lines| lines.lines().count());
    let images =
        settings.images.as_ref().map(|sets| sets.iter().map(|set| set.images).collect::<Vec<_>>());
    let of = |name: &str| all.get(name).cloned().unwrap_or_default();
    Ok(vec![
        ("kind", json!("run")),
        ("recipe", json!(settings.recipe.name)),
        ("epochs done", json!(done)),
        ("epochs", json!(settings.recipe.epochs)),
        ("clusters", json!(settings.recipe.clusters)),
        ("data", json!(settings.data)),
        ("images and validation images", json!(images)),
        ("seed", json!(settings.seed)),
        ("begun", json!(settings.begun.date)),
        ("command", json!(settings.begun.command)),
        ("commit", json!(settings.begun.commit)),
        ("engine", of("engine")),
        ("seconds", of("seconds")),
    ])
}

fn checkpoint(file: &Weights, state: State) -> About {
    let State { recipe, epoch, step, set, segments, start, .. } = state;
    let names = Segment::completed(segments, recipe.clusters);
    let names: Vec<String> = names.iter().enumerate().map(|(id, s)| s.title(id)).collect();
    let resumes = file.tensors.keys().any(|name| name.starts_with("adam."));
    let mut about = vec![
        ("kind", json!("checkpoint")),
        ("recipe", json!(recipe.name)),
        ("backbone", json!(recipe.architecture.backbone.name)),
        ("clusters", json!(names)),
        ("training input", json!(recipe.size)),
        ("epoch to come", json!(epoch)),
        ("step to come", json!(step)),
        ("images", json!(set.images)),
        ("started from", json!(start.to_string())),
        ("can be resumed", json!(resumes)),
    ];
    about.extend(sizes(file));
    about
}

/// Weights that picie did not write: whose they are, and what of them is read.
fn foreign(path: &Path, file: Weights) -> Result<About> {
    let backbone = weights::backbone(&file.tensors);
    let (all, sizes) = (file.tensors.len(), sizes(&file));
    let architecture = Architecture::of(backbone.unwrap_or_default());
    let (used, origin) = weights::canonical(file, path, &expected(architecture))?;
    let kind = match origin {
        Origin::ReleasedPicie { .. } => "checkpoint of the released code",
        _ => "weights",
    };
    let mut about = vec![
        ("kind", json!(kind)),
        ("backbone", json!(architecture.backbone.name)),
        ("tensors read", json!(used.tensors.len())),
        ("tensors left out", json!(all - used.tensors.len())),
    ];
    about.extend(sizes);
    Ok(about)
}

fn sizes(file: &Weights) -> About {
    let numbers: usize = file.tensors.values().map(|t| t.shape.iter().product::<usize>()).sum();
    vec![("tensors", json!(file.tensors.len())), ("numbers", json!(numbers))]
}
