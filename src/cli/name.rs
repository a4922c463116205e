//! The command `picie name`, which lists and changes what the clusters of a checkpoint are called.

use serde_json::{Value, json};

use crate::base::{Error, Result};
use crate::cli::args::NameArgs;
use crate::cli::say;
use crate::eval::Segment;
use crate::train::rename;

/// Runs the command: changes the names that are given, and lists all.
pub fn run(args: &NameArgs) -> Result<()> {
    let names: Vec<_> = args.names.iter().map(|name| (name.id, name.name.clone())).collect();
    let mut ids: Vec<usize> = names.iter().map(|(id, _)| *id).collect();
    ids.sort();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::input(format!("cluster {} gets two names", pair[0]), "give it one"));
    }
    let segments = rename(&args.checkpoint, &names)?;
    if args.json {
        return say(json!({ "segments": listed(&segments) }));
    }
    let line = |(id, segment): (usize, &Segment)| {
        format!("{id:>3}  {}  {}", segment.hex(), segment.name.as_deref().unwrap_or("-"))
    };
    say(segments.iter().enumerate().map(line).collect::<Vec<_>>().join("\n"))
}

/// The clusters as JSON has them: number, name or null, colour as #rrggbb.
pub fn listed(segments: &[Segment]) -> Vec<Value> {
    let entry = |(id, segment): (usize, &Segment)| json!({ "id": id, "name": segment.name, "colour": segment.hex() });
    segments.iter().enumerate().map(entry).collect()
}
