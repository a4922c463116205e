//! The meaning of what was typed: a recipe with its overrides, a run folder, a data set. Every
//! conflict between flags is an error here.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::base::{Error, Result, tell};
use crate::cli::args::{Clusters, RecipeArg, RecipeName, ShapeArgs, TrainArgs};
use crate::cli::limits::check_limit;
use crate::cli::paths::{absolute, cache, newest, next_free};
use crate::cli::recipe_file;
use crate::cli::scenes::draw_scenes;
use crate::data::{self, DataLayout};
use crate::net::Architecture;
use crate::net::weights::{Source, Start};
use crate::recipe::{Information, Method, Recipe};
use crate::train::{Begun, Host, RunFolder, Settings};

/// The numbers of a recipe that are still to be chosen from the images.
#[derive(Clone, Copy, Debug)]
pub struct Undecided {
    /// Whether the number of clusters is.
    pub clusters: bool,
    /// Whether the number of epochs is.
    pub epochs: bool,
}

impl ShapeArgs {
    /// The recipe, with each number replaced by its flag, if that is given.
    pub fn overridden(&self, recipe: Recipe) -> Recipe {
        let size = self.size.unwrap_or(recipe.size);
        Recipe {
            size,
            eval_size: (recipe.eval_size * size / recipe.size).next_multiple_of(32),
            // An input larger than the stored images needs larger ones, unless --stored is given.
            stored: self.stored.unwrap_or_else(|| match self.size {
                Some(size) if size > recipe.stored => 2 * size,
                _ => recipe.stored,
            }),
            batch: self.batch.unwrap_or(recipe.batch),
            batch_cluster: self.batch_cluster.unwrap_or(recipe.batch_cluster),
            clusters: match self.clusters {
                Some(Clusters::Count(clusters)) => clusters,
                Some(Clusters::Auto) | None => recipe.clusters,
            },
            auxiliary: self.auxiliary.unwrap_or(recipe.auxiliary),
            architecture: Architecture {
                backbone: self.backbone.unwrap_or(recipe.architecture.backbone),
                levels: self.levels.unwrap_or(recipe.architecture.levels),
                sobel: self.sobel || recipe.architecture.sobel,
            },
            ..recipe
        }
    }
}

impl TrainArgs {
    /// The recipe, with each number replaced by its flag, if that is given.
    fn overridden(&self, recipe: Recipe) -> Result<Recipe> {
        let recipe = self.shape.overridden(recipe);
        let recipe = Recipe {
            epochs: self.epochs.unwrap_or(recipe.epochs),
            lr: self.lr.unwrap_or(recipe.lr),
            balance: self.balance.unwrap_or(recipe.balance),
            merge: self.merge.unwrap_or(recipe.merge),
            init_batches: self.init_batches.unwrap_or(recipe.init_batches),
            update_every: self.update_every.unwrap_or(recipe.update_every),
            kmeans_iters: self.kmeans_iters.unwrap_or(recipe.kmeans_iters),
            classifier: self.classifier.unwrap_or(recipe.classifier),
            freeze: self.freeze.unwrap_or(recipe.freeze),
            matching: self.matching.unwrap_or(recipe.matching),
            weights: self.source()?.unwrap_or(recipe.weights),
            laterals: self.laterals.unwrap_or(recipe.laterals),
            eval_size: self.eval_size.unwrap_or(recipe.eval_size),
            information: match self.lambda {
                Some(lambda) => {
                    Information { lambda, lambda_auxiliary: lambda, ..recipe.information }
                }
                None => recipe.information,
            },
            ..recipe
        };
        self.set.iter().try_fold(recipe, |recipe, text| set(recipe, text))
    }

    /// The weights that `--weights` names. The path of a file is made absolute, so that a later
    /// command finds it, too.
    fn source(&self) -> Result<Option<Source>> {
        match &self.weights {
            Some(Source::File(path)) => Ok(Some(Source::File(absolute(path)?))),
            other => Ok(other.clone()),
        }
    }

    /// The locked run folder, the run's settings, and the weights to start from. `gpu`: the engine
    /// is a GPU. Fails if flags contradict each other, the folder or the data.
    pub fn settings(&self, gpu: bool) -> Result<(RunFolder, Settings, Start)> {
        let mut all = if self.resume { self.resumed() } else { self.fresh(gpu) }?;
        all.0.keep = self.keep_epochs.map(usize::from);
        Ok(all)
    }

    /// The recipe that was typed by its name, or else the one that suits the data.
    pub fn name(&self, gpu: bool) -> Result<RecipeName> {
        if let Some(RecipeArg::Named(name)) = self.recipe {
            return Ok(name);
        }
        let Some(data) = &self.data else { return Ok(RecipeName::Demo) };
        let layout = DataLayout::of(&absolute(data)?, self.dataset);
        if gpu || self.recipe.is_some() || layout.paper {
            return Ok(RecipeName::Picie);
        }
        let what = if layout.has_labels() { layout.title } else { "a folder without labels" };
        tell(format_args!(
            "recipe photos ({what}, on the CPU; --recipe picie for the paper's numbers)"
        ));
        Ok(RecipeName::Photos)
    }

    /// The numbers of a new run of the recipe `name`, those that follow from its images aside.
    pub fn numbers(&self, name: RecipeName) -> Result<Recipe> {
        if let Some(RecipeArg::File(path)) = &self.recipe {
            return self.overridden(recipe_file::read(path)?);
        }
        // The numbers that are made small below must not be small already, because the small
        // numbers depend on the weights.
        let whole = if matches!(name, RecipeName::Demo | RecipeName::Photos) {
            Recipe::picie()
        } else {
            name.recipe()
        };
        let start = if self.weights == Some(Source::None) { whole.from_scratch() } else { whole };
        self.overridden(match name {
            RecipeName::Photos => start.for_photos(),
            RecipeName::Demo => Recipe { name: Recipe::demo().name, ..start.small() },
            _ if self.data.is_none() => start.small(),
            _ => start,
        })
    }

    /// The folder, settings and weights of a new run.
    fn fresh(&self, gpu: bool) -> Result<(RunFolder, Settings, Start)> {
        let mut recipe = self.numbers(self.name(gpu)?)?;
        if self.shape.clusters == Some(Clusters::Auto) && !recipe.clustered() {
            let what = format!("--clusters auto in the recipe {}", recipe.name);
            return Err(Error::input(
                what,
                "it is for recipes with k-means, as picie and mdc: say a number",
            ));
        }
        check_limit(self.limit)?;
        recipe.architecture.check()?;
        let start = recipe.weights.open(recipe.architecture)?;
        let data = match &self.data {
            Some(dir) => absolute(dir)?,
            None => demo_scenes()?,
        };
        if recipe.method == Method::Supervised {
            recipe.clusters = self.labelled_classes(&data, &recipe)?;
        }
        recipe.check()?;
        let path = match &self.run {
            Some(path) => path.clone(),
            None => next_free(&recipe.name),
        };
        let folder = RunFolder::open(&path)?;
        if folder.settings_path().exists() {
            return Err(Error::file(
                path,
                "this folder already holds a run",
                "add --resume to continue it, or choose another --run",
            ));
        }
        check_place(&folder, &data, &recipe.weights)?;
        let settings = Settings {
            recipe,
            seed: self.seed.unwrap_or(1),
            data,
            dataset: self.dataset,
            split: self.split.clone().unwrap_or_else(|| "train".into()),
            val_split: self.val_split.clone().unwrap_or_else(|| "val".into()),
            classes: self.classes.unwrap_or_default(),
            limit: self.limit,
            exif: !self.turn.no_exif,
            images: None,
            start: start.provenance.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            host: Host::here(),
            begun: Begun::now(),
            engine: None,
            seconds: 0.0,
        };
        Ok((folder, settings, start))
    }

    /// The numbers that a new run leaves to be chosen from its images.
    pub fn undecided(&self, recipe: &Recipe) -> Undecided {
        let file = matches!(self.recipe, Some(RecipeArg::File(_)));
        let photos = recipe.name == Recipe::photos().name && !file;
        let set = |name| {
            self.set.iter().any(|text| text.split_once('=').is_some_and(|(set, _)| set == name))
        };
        let unsaid = photos && self.shape.clusters.is_none() && !set("clusters");
        Undecided {
            clusters: !self.resume && (unsaid || self.shape.clusters == Some(Clusters::Auto)),
            epochs: !self.resume && photos && self.epochs.is_none() && !set("epochs"),
        }
    }

    /// The number of classes in the labels that a recipe learns from. Fails if the data set has no
    /// labels.
    fn labelled_classes(&self, data: &Path, recipe: &Recipe) -> Result<usize> {
        let taxonomy = data::taxonomy(data, self.dataset, self.classes.unwrap_or_default())?;
        let Some(taxonomy) = taxonomy else {
            let what = format!(
                "the recipe {} learns from labels, and a plain folder of images has none",
                recipe.name
            );
            return Err(Error::file(
                data,
                what,
                "give a data set with label maps, or use --recipe picie",
            ));
        };
        let classes = taxonomy.classes.len();
        match self.shape.clusters {
            Some(Clusters::Count(k)) if k != classes => {
                let what = format!(
                    "--clusters {k}, but {} has {classes} classes, which {} learns",
                    taxonomy.name, recipe.name
                );
                Err(Error::input(what, "leave it out"))
            }
            _ => Ok(classes),
        }
    }

    /// The folder, saved settings and weights of a run that is resumed. Images and first weights
    /// may have moved: a run is what they hold, not where they lie. Fails if another flag
    /// contradicts the settings.
    fn resumed(&self) -> Result<(RunFolder, Settings, Start)> {
        let path = match &self.run {
            Some(path) => path.clone(),
            None => newest().ok_or_else(|| {
                Error::input("there is no run in runs/", "say which with --run DIR")
            })?,
        };
        if !path.is_dir() {
            return Err(Error::file(
                path,
                "there is no run to resume here",
                "check --run, or leave out --resume",
            ));
        }
        let folder = RunFolder::open(&path)?;
        let mut saved = folder.read_settings()?;
        if let Some(source) = self.source()? {
            saved.recipe.weights = source.clone();
            saved.start.source = source;
        }
        match &self.data {
            Some(data) => saved.data = absolute(data)?,
            None if !saved.data.exists() => {
                return Err(Error::file(
                    &saved.data,
                    "the images of this run are not there any more",
                    "say where they are now with --data DIR",
                ));
            }
            None => {}
        }
        let name = match &self.recipe {
            Some(RecipeArg::Named(name)) => Some(name.recipe().name),
            Some(RecipeArg::File(path)) => Some(recipe_file::read(path)?.name),
            None => None,
        };
        // A run may go on for longer than was said, with the same command or another.
        if let Some(more) = self.epochs.filter(|&epochs| epochs > saved.recipe.epochs) {
            saved.recipe.epochs = more;
        }
        let recipe = self.overridden(saved.recipe.clone())?;
        let conflict = recipe != saved.recipe
            || name.is_some_and(|n| n != saved.recipe.name)
            || self.seed.is_some_and(|s| s != saved.seed)
            || self.limit.is_some_and(|l| Some(l) != saved.limit)
            || self.turn.no_exif && saved.exif
            || self.split.as_ref().is_some_and(|s| *s != saved.split)
            || self.val_split.as_ref().is_some_and(|s| *s != saved.val_split)
            || self.classes.is_some_and(|c| c != saved.classes)
            || self.dataset.is_some_and(|d| d != DataLayout::of(&saved.data, saved.dataset));
        if conflict {
            let what = format!(
                "the run was started with other settings than these flags{}",
                changes(&saved.recipe, &recipe)
            );
            return Err(Error::file(
                folder.settings_path(),
                what,
                "leave the flags out to resume it, or begin anew: with another --run, or after this \
                 folder was moved away",
            ));
        }
        // A checkpoint holds all weights. Without one the run begins again from its first weights;
        // with other ones given, they must be the same.
        let start = if folder.checkpoint().exists() && self.source()?.is_none() {
            Start { provenance: saved.start.clone(), ..Start::random() }
        } else {
            match &saved.recipe.weights {
                Source::File(path) if !path.exists() => {
                    return Err(Error::file(
                        path,
                        "the weights that this run starts from are not there any more",
                        "say where they are now with --weights FILE",
                    ));
                }
                weights => weights.open(saved.recipe.architecture)?,
            }
        };
        if start.provenance.sha256 != saved.start.sha256 {
            let what = format!(
                "the run was started from other weights than {} holds now",
                saved.start.source
            );
            return Err(Error::file(
                folder.settings_path(),
                what,
                "say where the old ones are with --weights FILE, or start a new --run",
            ));
        }
        Ok((folder, saved, start))
    }
}

/// The numbers that differ between two recipes, as in ": epochs 1, now 2"; empty if none does.
fn changes(old: &Recipe, new: &Recipe) -> String {
    let value = |recipe: &Recipe| serde_json::to_value(recipe).expect("a recipe is plain data");
    let (old, new) = (value(old), value(new));
    let change = |(name, new): (&String, &serde_json::Value)| {
        (old[name] != *new).then(|| format!("{name} {}, now {new}", old[name]))
    };
    let changes: Vec<String> = new.as_object().into_iter().flatten().filter_map(change).collect();
    if changes.is_empty() { String::new() } else { format!(": {}", changes.join(", ")) }
}

/// Fails if a new run would write among its images, or over the weights that it starts from.
fn check_place(folder: &RunFolder, data: &Path, weights: &Source) -> Result<()> {
    let path = absolute(&folder.path)?;
    let own = |file: &Path| file.parent() == Some(&path);
    let inside = |dir: PathBuf| absolute(&dir).is_ok_and(|dir| data.starts_with(dir));
    let among = data == path || inside(folder.pictures()) || inside(folder.events());
    let lock = |entry: &DirEntry| RunFolder::is_lock(&entry.path());
    let holds = || std::fs::read_dir(&path).is_ok_and(|all| !all.flatten().all(|e| lock(&e)));
    let what = match weights {
        _ if among => "the images lie where this run would write",
        _ if path.starts_with(data) && holds() => {
            "this folder lies among the images and holds something, which would not be learned from"
        }
        Source::File(file) if own(file) => {
            "the weights to start from lie where this run would write"
        }
        _ => return Ok(()),
    };
    Err(Error::file(&folder.path, what, "choose another --run"))
}

/// The recipe with one of its numbers replaced. `text` is NAME=VALUE; names of nested numbers are
/// joined by points. Fails on unknown names and on values of another kind.
fn set(recipe: Recipe, text: &str) -> Result<Recipe> {
    let wrong = |why: String| {
        Error::input(
            format!("--set {text}: {why}"),
            "take a name and the kind of value from a run.json",
        )
    };
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("not NAME=VALUE".into()))?;
    let mut all = serde_json::to_value(&recipe).expect("a recipe is plain data");
    let place = all.pointer_mut(&format!("/{}", name.replace('.', "/")));
    let place = place
        .filter(|_| name != "name")
        .ok_or_else(|| wrong("the recipe has no such number".into()))?;
    *place = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    serde_json::from_value(all).map_err(|e| wrong(e.to_string()))
}

/// The folder of the demo's scenes, which are drawn the first time.
fn demo_scenes() -> Result<PathBuf> {
    let dir = cache().join("scenes-256-64-1");
    draw_scenes(&dir, 256, 64, 1)?;
    Ok(dir)
}
