//! The recipes of the command line.

use clap::ValueEnum;
use picie::cli::args::RecipeName;
use picie::recipe::Recipe;

#[test]
fn recipes_are_consistent_and_bugs_are_off() {
    for recipe in RecipeName::value_variants().iter().map(|name| name.recipe()) {
        for recipe in [recipe.clone().small(), recipe] {
            recipe.check().unwrap();
            assert!(!recipe.bug_plain_view1);
            let text = serde_json::to_string(&recipe).unwrap();
            assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
        }
    }
}
