//! The reading of a recipe from a file.

use std::path::Path;

use serde_json::{Value, json};

use crate::base::{Error, Result};
use crate::recipe::Recipe;
use crate::report::html::run::flat;

/// The remedy for a file that is no recipe.
const REMEDY: &str = "begin with what picie recipes NAME --json prints, or with a run.json";

/// Reads a recipe from its JSON, or from the `run.json` of a run. Fails if a number is missing, and
/// if there is one that no recipe has, with the name that is most like it.
pub fn read(path: &Path) -> Result<Recipe> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let mut file: Value = serde_json::from_slice(&text)
        .map_err(|e| Error::file(path, format!("no JSON ({e})"), REMEDY))?;
    if file["recipe"].is_object() {
        file = file["recipe"].take();
    }
    let names = |value: &Value| flat(value).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let (given, known) = (names(&file), names(&json!(Recipe::picie())));
    if let Some(wrong) = given.iter().find(|name| !known.contains(name)) {
        let nearest = nearest(wrong, known.iter().map(String::as_str)).unwrap_or_default();
        let what = format!("no recipe has a number {wrong}: {nearest} is meant");
        return Err(Error::file(path, what, "correct the name, or leave it out"));
    }
    if let Some(name) = known.iter().find(|name| !given.contains(name)) {
        return Err(Error::file(path, format!("{name} is missing"), REMEDY));
    }
    serde_json::from_value(file)
        .map_err(|e| Error::file(path, format!("no recipe ({e})"), "correct the value"))
}

/// The name that is most like `wrong`.
fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let like = |name: &&str| strsim::jaro_winkler(wrong, name);
    names.max_by(|a, b| like(a).total_cmp(&like(b)))
}
