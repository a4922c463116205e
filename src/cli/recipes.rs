//! The command `picie recipes`: the recipes by name, and the numbers of one.

use clap::ValueEnum;
use serde_json::json;

use crate::base::Result;
use crate::cli::args::{RecipeName, RecipesArgs};
use crate::cli::say;
use crate::report::html::run::flat;

/// Prints a line of each recipe, or each number of one with its name.
pub fn run(args: &RecipesArgs) -> Result<()> {
    match args.name {
        Some(name) => {
            // NOTE: by way of text, because a `Value` would hold an f32 of 0.3 as 0.30000001192.
            let text = serde_json::to_string(&name.recipe()).expect("a recipe is plain data");
            if args.json {
                return say(text);
            }
            let value = serde_json::from_str(&text).expect("this is JSON");
            say(lines(flat(&value)))
        }
        None => {
            let all = RecipeName::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let all: Vec<(String, String)> = all
                .map(|v| {
                    let help = v.get_help().map(ToString::to_string).unwrap_or_default();
                    (v.get_name().to_string(), help)
                })
                .collect();
            if args.json {
                say(json!(all.into_iter().collect::<Vec<_>>()))
            } else {
                say(lines(all))
            }
        }
    }
}

/// A line for each name with what belongs to it, one below the other.
fn lines(all: Vec<(String, String)>) -> String {
    let width = all.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, what): &(String, String)| format!("{name:width$}  {what}");
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}
