//! The command `picie sweep`: a run for each value of one setting and each seed, and a table of
//! their scores.

use std::collections::BTreeSet;
use std::path::Path;

use crate::base::{Error, Result, tell};
use crate::cli::args::{RecipeArg, RecipeName, SweepArgs, TrainArgs};
use crate::cli::engine::Chosen;
use crate::cli::say;
use crate::cli::train::{self, One};
use crate::device::cuda::Autotune;
use crate::eval::epochs::Score;
use crate::report::table;

/// The values of λ in table 1 of the paper's supplement.
const LAMBDAS: [&str; 6] = ["1", "1.25", "1.5", "1.75", "2", "3"];

/// Runs the command: trains all runs, or resumes them, and prints their table or JSON.
pub fn run(args: &SweepArgs) -> Result<()> {
    for (flag, given) in [("--resume", args.train.resume), ("--plan", args.train.plan)] {
        if given {
            return Err(Error::input(
                format!("{flag} is for one run"),
                "leave it out: a sweep goes on where it was stopped",
            ));
        }
    }
    let mut args = args.clone();
    if args.name == "lambda" {
        args.train.recipe.get_or_insert(RecipeArg::Named(RecipeName::Iic));
        if args.values.is_empty() {
            args.values = LAMBDAS.map(String::from).to_vec();
        }
    }
    if args.values.is_empty() {
        return Err(Error::input(
            format!("no value of {} to try", args.name),
            "list them: --values A,B,C",
        ));
    }
    let gpu = Chosen::new(&args.train.engine, Autotune::Load)?.is_gpu();
    if args.name != "recipe" && args.train.recipe.is_none() {
        args.train.recipe = Some(RecipeArg::Named(args.train.name(gpu)?));
    }
    // A wrong value is told before hours of training with the others.
    for value in &args.values {
        let train = of(&args, value, args.train.clone())?;
        let recipe = train.numbers(train.name(gpu)?)?;
        recipe.architecture.check()?;
        recipe.check()?;
    }
    let folder = args.train.run.clone();
    let folder = folder.unwrap_or_else(|| Path::new("runs").join(format!("sweep-{}", args.name)));
    let (mut rows, mut sizes) = (Vec::new(), BTreeSet::new());
    let mut said = Ok(());
    let (mut finished, all) = (0, args.values.len() * args.seeds.len());
    for value in &args.values {
        let mut scores = Vec::new();
        for &seed in &args.seeds {
            let heading = format!("{} {value}, seed {seed}", args.name);
            if args.train.json {
                tell(heading);
            } else if said.is_ok() {
                said = say(heading);
            }
            let run = folder.join(format!("{value}-seed-{seed}"));
            let one = of(
                &args,
                value,
                TrainArgs {
                    seed: Some(seed),
                    resume: run.join("run.json").exists(),
                    run: Some(run),
                    ..args.train.clone()
                },
            )?;
            let (score, size) = score(&one, &mut said).map_err(|e| {
                let kept =
                    format!("{finished} of {all} runs are finished, everything so far is saved");
                e.kept(kept, "run the same command again to go on")
            })?;
            finished += 1;
            scores.push(score);
            sizes.insert(size);
        }
        rows.push((value.clone(), scores));
    }
    if args.train.json {
        let json: serde_json::Map<_, _> =
            rows.into_iter().map(|(value, scores)| (value, serde_json::json!(scores))).collect();
        return say(serde_json::Value::Object(json));
    }
    said?;
    let sizes: Vec<String> = sizes.into_iter().map(table::scored_at).collect();
    say(format_args!("{}\n{}", table::scores(&args.name, &rows), sizes.join("\n")))
}

/// The arguments of a run with one value of the setting.
fn of(args: &SweepArgs, value: &str, train: TrainArgs) -> Result<TrainArgs> {
    let wrong = || Error::input(format!("{value} is no value of {}", args.name), "check --values");
    Ok(match &*args.name {
        "recipe" => TrainArgs { recipe: Some(value.parse().map_err(|_| wrong())?), ..train },
        "lambda" => TrainArgs { lambda: Some(value.parse().map_err(|_| wrong())?), ..train },
        name => {
            let mut set = train.set.clone();
            set.push(format!("{name}={value}"));
            TrainArgs { set, ..train }
        }
    })
}

/// Trains a run, and says its table unless JSON is asked for. Returns its score after its last
/// epoch, and the size of evaluated images. A standard output that cannot be written does not stop
/// the sweep: the first failure goes to `said`.
fn score(args: &TrainArgs, said: &mut Result<()>) -> Result<(Score, usize)> {
    let One { folder, rows, .. } = train::one(args)?;
    if !args.json && said.is_ok() {
        *said = say(table::epochs(&rows));
    }
    let last = rows.last().and_then(|row| {
        let score = Score { acc: row.acc?, miou: row.miou?, miou_present: row.miou_present? };
        Some((score, row.eval_size))
    });
    last.ok_or_else(|| {
        Error::file(&folder.path, "the run was not evaluated", "sweep on a data set with labels")
    })
}
