//! Classes that users name themselves, in a file at the top of their data set.
//!
//! * `classes.txt`: one name a line; the first is of value 0, that of an empty line is ignored.
//! * `classes.json`: a list of names, or of objects with `name` and perhaps `id` (the value in
//!   label maps; else one after the other), `color` (`"#rrggbb"` or `[r, g, b]`, also the colour in
//!   label maps that are pictures) and `ignore` (true: such pixels count for nothing); or one
//!   object that has names by value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::decode;
use super::labels::{IGNORE, MOST, Taxonomy};
use super::palette::Colour;
use crate::base::say::warn;
use crate::base::{Error, Result, stop};

/// The names of the file.
pub const FILES: [&str; 2] = ["classes.json", "classes.txt"];

/// The file of a data set, if it has one.
pub fn file(root: &Path) -> Option<PathBuf> {
    FILES.map(|name| root.join(name)).into_iter().find(|path| path.is_file())
}

/// The classes of the file of a data set. `None`: it has none.
///
/// Errors: the file cannot be read, says nothing that is understood, or has too many classes.
pub fn read(root: &Path) -> Result<Option<Taxonomy>> {
    let Some(path) = file(root) else { return Ok(None) };
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let json = path.extension().is_some_and(|ending| ending == "json");
    let entries = if json { of_json(&text) } else { of_text(&text) };
    let entries = entries.map_err(|what| {
        Error::file(&path, what, "write a name a line, or as docs/usage.md says")
    })?;
    table(&path, entries).map(Some)
}

/// What a file says of a value.
#[derive(Debug, PartialEq)]
struct Entry {
    id: u64,
    /// `None`: the value is ignored.
    name: Option<String>,
    colour: Option<Colour>,
}

type Read = std::result::Result<Vec<Entry>, String>;

fn of_text(text: &str) -> Read {
    let names = text.trim_start_matches('\u{feff}').trim_end().lines().map(str::trim);
    let entry = |(id, name): (u64, &str)| {
        let name = Some(name).filter(|name| !name.is_empty()).map(str::to_string);
        Entry { id, name, colour: None }
    };
    Ok((0..).zip(names).map(entry).collect())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Json {
    List(Vec<Item>),
    ByValue(BTreeMap<String, String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Name(String),
    Class(Class),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    name: Option<String>,
    id: Option<u64>,
    #[serde(alias = "colour")]
    color: Option<Spelt>,
    #[serde(default)]
    ignore: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelt {
    Numbers(Colour),
    Hex(String),
}

impl Spelt {
    fn colour(self) -> std::result::Result<Colour, String> {
        let text = match self {
            Spelt::Numbers(colour) => return Ok(colour),
            Spelt::Hex(text) => text,
        };
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let [_, r, g, b] = number
            .map(u32::to_be_bytes)
            .ok_or_else(|| format!("the colour {text:?} is neither \"#rrggbb\" nor [r, g, b]"))?;
        Ok([r, g, b])
    }
}

fn of_json(text: &str) -> Read {
    let unlike = |e: serde_json::Error| format!("not a list of classes: {e}");
    match serde_json::from_str(text).map_err(unlike)? {
        Json::List(items) => (0..)
            .zip(items)
            .map(|(place, item)| match item {
                Item::Name(name) => Ok(Entry { id: place, name: Some(name), colour: None }),
                Item::Class(Class { name, id, color, ignore }) => {
                    let id = id.unwrap_or(place);
                    let name = match (name, ignore) {
                        (_, true) => None,
                        (Some(name), _) => Some(name),
                        (None, _) => return Err(format!("the class of value {id} has no name")),
                    };
                    Ok(Entry { id, name, colour: color.map(Spelt::colour).transpose()? })
                }
            })
            .collect(),
        Json::ByValue(names) => {
            let entry = |(id, name): (String, String)| match id.parse() {
                Ok(id) => Ok(Entry { id, name: Some(name), colour: None }),
                Err(_) => Err(format!("{id:?} is no value of a label map")),
            };
            let mut entries =
                names.into_iter().map(entry).collect::<std::result::Result<Vec<_>, _>>()?;
            entries.sort_by_key(|entry| entry.id);
            Ok(entries)
        }
    }
}

fn table(path: &Path, entries: Vec<Entry>) -> Result<Taxonomy> {
    let wrong = |what: String| Error::file(path, what, "mend the file");
    let named = entries.iter().filter(|entry| entry.name.is_some()).count();
    if !(1..=MOST).contains(&named) {
        return Err(wrong(format!("it names {named} classes, and 1 to {MOST} can be told apart")));
    }
    let (mut names, mut shown, mut ids, mut colours) = (vec![], vec![], vec![], vec![]);
    let mut seen = BTreeSet::new();
    for Entry { id, name, colour } in entries {
        let Ok(value) = u8::try_from(id) else {
            return Err(wrong(format!("the value {id} is not one of 0 to 255")));
        };
        if !seen.insert(value) {
            return Err(wrong(format!("the value {id} stands twice")));
        }
        colours.extend(colour.map(|colour| (colour, value)));
        match name {
            Some(name) => {
                ids.push((value, names.len() as u8));
                names.push(name);
                shown.push(colour);
            }
            None => ids.push((value, IGNORE)),
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let table = Taxonomy::new(&name, "the classes of a file of yours", &names, ids);
    Ok(Taxonomy { own: true, colours, shown, ..table })
}

/// The values that occur in label maps, each as a class called by its number. 255 is ignored, but
/// in masks that hold only 0 and 255. `None`, and why in a warning, if the maps cannot be read.
///
/// Errors: the user asked to stop.
pub fn found(maps: &[PathBuf]) -> Result<Option<Taxonomy>> {
    let values = |path: &PathBuf| -> Result<(BTreeSet<u8>, Option<Error>)> {
        stop::check()?;
        Ok(match decode::label(path) {
            Ok(map) => (map.ids.into_iter().collect(), None),
            Err(e) => (BTreeSet::new(), Some(e)),
        })
    };
    let both = |(mut values, why): (BTreeSet<u8>, Option<Error>), (more, other)| {
        values.extend(&more);
        Ok((values, why.or(other)))
    };
    let nothing = || (BTreeSet::new(), None);
    let (mut all, why) = maps.par_iter().map(values).try_reduce(nothing, both)?;
    if let (true, Some(why)) = (all.is_empty(), why) {
        // Whoever needs no labels goes on.
        warn(format_args!("warning: label maps are not read: {why}"));
        return Ok(None);
    }
    if all != BTreeSet::from([0, IGNORE]) {
        all.remove(&IGNORE);
    }
    let names: Vec<String> = all.iter().take(MOST).map(|id| format!("class {id}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ids = all.into_iter().take(MOST).zip(0..);
    let about = "a class for each value in the label maps";
    let table = Taxonomy::new("label maps without classes.txt", about, &names, ids);
    Ok((!names.is_empty()).then_some(Taxonomy { own: true, ..table }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_classes_and_masks_have_two() {
        let dir = tempfile::tempdir().unwrap();
        let found = |maps: &[&[u8]]| {
            let save = |(i, map): (usize, &&[u8])| {
                let path = dir.path().join(format!("{i}.png"));
                let picture = image::GrayImage::from_raw(map.len() as u32, 1, map.to_vec());
                picture.unwrap().save(&path).unwrap();
                path
            };
            let maps: Vec<PathBuf> = maps.iter().enumerate().map(save).collect();
            found(&maps).unwrap().map(|table| (table.classes.clone(), table.lut[255]))
        };
        let names = |ids: &[u8]| ids.iter().map(|id| format!("class {id}")).collect::<Vec<_>>();
        assert_eq!(found(&[&[0, 7, 255], &[3]]), Some((names(&[0, 3, 7]), IGNORE)));
        assert_eq!(found(&[&[0, 255], &[0]]), Some((names(&[0, 255]), 1)));
        assert_eq!(found(&[&[0, 1, 255]]), Some((names(&[0, 1]), IGNORE)));
        assert_eq!(found(&[&[255]]), None);
    }

    fn of(name: &str, text: &str) -> std::result::Result<Taxonomy, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
        match read(dir.path()) {
            Ok(table) => Ok(table.unwrap()),
            Err(e) => Err(e.to_string().replace(&dir.path().display().to_string(), "")),
        }
    }

    #[test]
    fn a_line_is_a_class() {
        let table = of("classes.txt", "\u{feff}sky\r\n\n  sea side \n").unwrap();
        assert_eq!(table.classes, ["sky", "sea side"]);
        assert_eq!((table.lut[0], table.lut[1], table.lut[2]), (0, IGNORE, 1));
        assert!(of("classes.txt", "\n\n").unwrap_err().contains("it names 0 classes"));
        let many: String = (0..=MOST).map(|i| format!("{i}\n")).collect();
        assert!(of("classes.txt", &many).unwrap_err().contains("it names 254 classes"));
    }

    #[test]
    fn json_has_names_values_colours_and_what_is_ignored() {
        let table = of(
            "classes.json",
            r##"[{"id": 7, "name": "sky", "color": "#0a0B0c"}, {"id": 3, "name": "sea", "colour": [1, 2, 3]},
                {"id": 0, "ignore": true, "color": [0, 0, 0]}]"##,
        );
        let table = table.unwrap();
        assert_eq!(table.classes, ["sky", "sea"]);
        assert_eq!((table.lut[7], table.lut[3], table.lut[0]), (0, 1, IGNORE));
        assert_eq!(table.palette(), [[10, 11, 12], [1, 2, 3]]);
        assert_eq!(table.colours, [([10, 11, 12], 7), ([1, 2, 3], 3), ([0; 3], 0)]);
        assert_eq!(of("classes.json", r#"["a", "b"]"#).unwrap().classes, ["a", "b"]);
        let by_value = of("classes.json", r#"{"10": "b", "2": "a"}"#).unwrap();
        assert_eq!((by_value.classes, by_value.lut[10]), (vec!["a".into(), "b".to_string()], 1));
        for (text, why) in [
            (r#"[{"id": 1}]"#, "the class of value 1 has no name"),
            (r#"[{"id": 256, "name": "a"}]"#, "the value 256 is not one of 0 to 255"),
            (r#"[{"id": 1, "name": "a"}, "b"]"#, "the value 1 stands twice"),
            (r#"[{"name": "a", "color": "red"}]"#, "the colour \"red\" is neither"),
            (r#"{"a": "b"}"#, "\"a\" is no value of a label map"),
            ("[1]", "not a list of classes"),
        ] {
            let said = of("classes.json", text).unwrap_err();
            assert!(said.starts_with("/classes.json: ") && said.contains(why), "{said}");
        }
    }
}
