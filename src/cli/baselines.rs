//! `picie baselines`: what is reached without training, on the images and by the matching of `picie eval`.

use std::collections::BTreeMap;

use crate::base::{Error, Result};
use crate::cli::args::{BaselinesArgs, SetArgs};
use crate::cli::engine::{Engine, Job};
use crate::cli::plan::check_size;
use crate::cli::say;
use crate::data::{Fit, ImageStore, PictureSet};
use crate::device::Backend;
use crate::eval::record::Score;
use crate::eval::{Confusion, Matching, Scores, Unlabelled};
use crate::method::baselines::{Clustered, Features, Lab};
use crate::method::predict::{confusions, each_batch, other_size, unlabelled};
use crate::report::{Progress, table, unlabelled as report};

/// Pixels of the pictures that are looked at together.
const BATCH_PIXELS: usize = 8 * 256 * 256;

pub fn run(args: &BaselinesArgs) -> Result<()> {
    let engine = Engine::choose(&args.engine)?;
    check_size(args.size)?;
    if args.clusters < 2 || args.clusters > usize::from(u16::MAX) {
        return Err(Error::input(format!("--clusters {}", args.clusters), "use 2 to 65535"));
    }
    let asked = args.classes.is_some() || args.matching.is_some();
    let set = args.set.pictures(args.classes, asked, args.size, Fit::Crop)?;
    let matching = args.matching.unwrap_or(Matching::OneToOne);
    if let PictureSet::Labelled(store) = &set {
        matching.check(store.occurring()?, args.clusters)?;
    }
    let train = SetArgs { split: args.train_split.clone(), ..args.set.clone() }.images(args.size, Fit::Crop)?;
    let rows = engine.run(Rows { args, train: &train, set: &set, matching })?;
    let json = args.json;
    let images = set.images().len();
    match rows {
        Measured::Scores(rows) if json => say_json(rows),
        Measured::Scores(rows) => say(table::scores("baseline", &rows)),
        Measured::Unlabelled(rows) if json => say_json(rows),
        Measured::Unlabelled(rows) => say(report::unlabelled(&rows, images, (args.size, other_size(args.size)))),
    }
}

fn say_json<T: serde::Serialize>(rows: Vec<(String, Vec<T>)>) -> Result<()> {
    let rows: BTreeMap<_, _> = rows.into_iter().collect();
    say(serde_json::to_string(&rows).expect("rows are plain data"))
}

/// The rows of the table, each with a value for each seed, or one where no draw matters.
enum Measured {
    Scores(Vec<(String, Vec<Score>)>),
    Unlabelled(Vec<(String, Vec<Unlabelled>)>),
}
