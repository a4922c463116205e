//! The command `picie info`, which says what a file is.

use serde_json::{Map, Value};

use crate::base::Result;
use crate::cli::args::InfoArgs;
use crate::cli::say;
use crate::train::about;

/// Runs the command.
pub fn run(args: &InfoArgs) -> Result<()> {
    let about = about(&args.file)?;
    if args.json {
        let named = about.into_iter().map(|(name, value)| (name.replace(' ', "_"), value));
        return say(Value::Object(named.collect::<Map<_, _>>()));
    }
    let width = about.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, Value)| format!("{name:width$}  {}", text(value));
    say(about.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// A value as people read it.
fn text(value: &Value) -> String {
    let list = |all: &mut dyn Iterator<Item = &Value>| all.map(text).collect::<Vec<_>>().join(", ");
    match value {
        Value::Null => "not said".into(),
        Value::String(text) => text.clone(),
        Value::Array(all) => list(&mut all.iter()),
        Value::Object(all) => list(&mut all.values()),
        other => other.to_string(),
    }
}
