//! The evaluation of a trained network on labelled images: scores are resampled to the size of the
//! labels, the arg-max is the predicted cluster, and a confusion matrix counts clusters against
//! classes.

use crate::augment::{Augment, Feeder, FeederSpec, View, crop_labels};
use crate::base::rng::{Rng, Stream};
use crate::base::{Result, stop};
use crate::cluster::{MiniBatch, Schedule, Scorer, Summary};
use crate::data::{EvalStore, ImageStore};
use crate::device::ops::{
    Classifier, ConfusionCount, Crop, HeadPredict, confusion_count, head_predict,
};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::eval::Confusion;
use crate::method::{Batching, Programs, Tick, program_spec};
use crate::net::{FEATURES, Mode, Network, ProgramSpec, STRIDE};
use crate::recipe::Recipe;

/// An evaluation of classifiers on a set of square images with labels of the same size.
pub struct Evaluator {
    /// The programs for plain images.
    programs: Programs,
    /// The programs for images together with their mirror images. `None` if predictions are made
    /// from plain images only.
    mirrored: Option<Programs>,
    feeder: Feeder,
    /// Number of images in a full batch.
    batch: usize,
    /// (images of a batch, size, size), predicted clusters.
    pred: Slot<u16>,
    /// (images of a batch, size, size), true classes.
    labels: Slot<u8>,
    /// (classes, clusters), the confusion matrix.
    counts: Slot<u32>,
    /// Number of classes.
    classes: usize,
    /// The label maps of a batch on the host.
    host: Vec<u8>,
    /// The images whose predictions a run keeps, in order, and what the last run kept.
    keep: Vec<usize>,
    kept: Vec<u16>,
    /// The k-means of this set's own features, if planned.
    cluster: Option<MiniBatch>,
}

/// Where the images `of` lie in a batch `ids` of consecutive ones.
fn places<'a>(of: &'a [usize], ids: &'a [u32]) -> impl Iterator<Item = usize> + 'a {
    of.iter().filter_map(|&image| image.checked_sub(ids[0] as usize)).filter(|at| *at < ids.len())
}

/// The sizes of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct EvalShape {
    /// The division of the set into batches.
    pub batching: Batching,
    /// Side of the pictures and of their label maps, in pixels.
    pub size: usize,
}

impl EvalShape {
    fn program_spec(&self, recipe: &Recipe) -> ProgramSpec {
        ProgramSpec { h: self.size, w: self.size, k: recipe.clusters, ..program_spec(recipe) }
    }
}

impl Evaluator {
    /// Plans an evaluation for networks and clusters of `recipe` on `classes` classes, and, if
    /// `kmeans` is given, a k-means of the set's own features. Fails if that has fewer points than
    /// clusters.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        recipe: &Recipe,
        shape: EvalShape,
        classes: usize,
        kmeans: Option<Schedule>,
    ) -> Result<Self> {
        let (k, EvalShape { batching, size }) = (recipe.clusters, shape);
        let mode = Mode::Eval;
        let programs =
            Programs::plan(dev, layout, net, batching, 1, shape.program_spec(recipe), mode)?;
        let full = batching.full();
        let spec = FeederSpec {
            augment: recipe.augment,
            seed: 0,
            stored: size,
            size,
            channels: recipe.architecture.input(),
            batches: &batching.sizes(),
            repeated: &[],
        };
        let mut feeder = Feeder::plan(dev, layout, spec)?;
        feeder.place_batches(dev, layout);
        let cluster = kmeans.map(|schedule| {
            let first = schedule.init_batches.saturating_mul(full);
            let points = batching.images.min(first) * (size / STRIDE).pow(2);
            let points = layout.acts(Pool::State, "k-means points", points * FEATURES);
            MiniBatch::plan(dev, layout, schedule, k, points)
        });
        let cluster = cluster.transpose()?;
        Ok(Evaluator {
            programs,
            mirrored: None,
            feeder,
            batch: full,
            pred: layout.take(Pool::State, "evaluation predictions", full * size * size),
            labels: layout.take(Pool::Staging, "evaluation labels", full * size * size),
            counts: layout.take(Pool::State, "evaluation confusion", classes * k),
            classes,
            host: Vec::new(),
            keep: Vec::new(),
            kept: Vec::new(),
            cluster,
        })
    }

    /// Makes predictions average the scores of the picture and of its mirror image from here on.
    /// Part of the plan; the arguments are those of [`Evaluator::plan`].
    ///
    /// NOTE: scores are linear in the features, so this is the same as predicting from averaged
    /// features, as later papers do; if the recipe normalises features, each view's are normalised
    /// before.
    pub fn add_mirror(
        &mut self,
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        recipe: &Recipe,
        shape: EvalShape,
    ) -> Result<()> {
        let (batching, spec) = (shape.batching, shape.program_spec(recipe));
        self.mirrored = Some(Programs::plan(dev, layout, net, batching, 2, spec, Mode::Eval)?);
        self.draw_from(Augment { flip_p: 1.0, ..Augment::none() }, 0);
        Ok(())
    }

    /// Counts the confusion matrix of the classifier over the whole set. Pictures and label maps
    /// are rendered as `view`: plain, or changed and cropped by the draws set with
    /// [`Evaluator::draw_from`].
    pub fn run(
        &mut self,
        dev: &mut dyn Engine,
        net: &Network,
        set: &EvalStore,
        classifier: Classifier,
        view: View,
        tick: Tick,
    ) -> Result<Confusion> {
        net.fold(dev)?;
        dev.zero(self.counts)?;
        self.kept.clear();
        let ids: Vec<u32> = (0..set.images.len() as u32).collect();
        let chunks: Vec<&[u32]> = ids.chunks(self.batch).collect();
        for (i, &ids) in chunks.iter().enumerate() {
            self.stage(dev, &set.images, ids, view)?;
            self.host.resize(ids.len() * self.feeder.size().pow(2), 0);
            set.gather_labels(ids, &mut self.host)?;
            if view != View::Plain {
                self.crop_labels(ids, view);
            }
            let labels = self.labels.part(0, self.host.len());
            dev.write(labels, &self.host)?;
            let pred = self.predict_staged(dev, net, ids.len(), classifier, view)?;
            let (counts, clusters) = (self.counts, classifier.k);
            confusion_count(dev, ConfusionCount { counts, pred, labels, clusters })?;
            let pixels = self.feeder.size().pow(2);
            for at in places(&self.keep, ids) {
                self.kept.extend(dev.read(pred.part(at * pixels, pixels))?);
            }
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            self.feeder.prefetch(dev, &set.images, next)?;
            tick(ids.len())?;
        }
        let counts = dev.read(self.counts)?.into_iter().map(u64::from).collect();
        Ok(Confusion { classes: self.classes, clusters: classifier.k, counts })
    }

    /// Makes every later [`Evaluator::run`] keep its predictions of these images, in rising order.
    pub fn keep(&mut self, images: Vec<usize>) {
        self.keep = images;
    }

    /// The clusters (images, size, size) that the last run kept.
    pub fn kept(&self) -> &[u16] {
        &self.kept
    }

    /// Sets the source of draws for views that are not plain.
    pub fn draw_from(&mut self, augment: Augment, seed: u64) {
        self.feeder.draw_from(augment, seed);
    }

    /// Crops and mirrors the label maps in `host` as their pictures are.
    fn crop_labels(&mut self, ids: &[u32], view: View) {
        let side = self.feeder.size();
        for (map, crop) in
            self.host.chunks_mut(side * side).zip(self.feeder.input_crops(ids, 0, view))
        {
            let cut = crop_labels(map, side, crop, side);
            map.copy_from_slice(&cut);
        }
    }

    /// The predicted clusters (n, size, size) of n `images` of the set, in rising order.
    pub fn predict(
        &mut self,
        dev: &mut dyn Engine,
        net: &Network,
        set: &ImageStore,
        classifier: Classifier,
        images: &[usize],
    ) -> Result<Vec<u16>> {
        net.fold(dev)?;
        let pixels = self.feeder.size().pow(2);
        let mut out = Vec::new();
        let ids: Vec<u32> = (0..set.len() as u32).collect();
        // Whole batches only, because those are what programs were planned for.
        for ids in ids.chunks(self.batch) {
            if places(images, ids).next().is_none() {
                continue;
            }
            stop::check()?;
            self.stage(dev, set, ids, View::Plain)?;
            let pred = self.predict_staged(dev, net, ids.len(), classifier, View::Plain)?;
            for at in places(images, ids) {
                out.extend(dev.read(pred.part(at * pixels, pixels))?);
            }
        }
        Ok(out)
    }

    /// Computes the scorer's centroids by k-means of the set's own features. Panics if no k-means
    /// was planned.
    pub fn cluster(
        &mut self,
        dev: &mut dyn Engine,
        net: &Network,
        set: &ImageStore,
        scorer: &Scorer,
        tick: Tick,
    ) -> Result<Summary> {
        net.fold(dev)?;
        let mut cluster = self.cluster.take().expect("planned with a k-means schedule");
        let mut rng = Rng::new(1, Stream::KMeansInit, 0, 0);
        cluster.begin(dev, false)?;
        let ids: Vec<u32> = (0..set.len() as u32).collect();
        let batches = ids.len().div_ceil(self.batch);
        for (i, ids) in ids.chunks(self.batch).enumerate() {
            self.stage(dev, set, ids, View::Plain)?;
            let program = self.programs.of(ids.len());
            dev.write(program.crops, &vec![Crop::whole(program.spec.h / STRIDE); ids.len()])?;
            self.feeder.render(dev, program.x, ids.len(), 0, View::Plain)?;
            program.forward(dev, net)?;
            cluster.push(dev, program, scorer, &mut rng, i + 1 == batches)?;
            tick(ids.len())?;
        }
        let summary = cluster.finish(dev);
        self.cluster = Some(cluster);
        summary
    }

    fn stage(
        &mut self,
        dev: &mut dyn Engine,
        set: &ImageStore,
        ids: &[u32],
        view: View,
    ) -> Result<()> {
        // With the draws of `add_mirror`, the second view is the mirrored image without other
        // changes.
        let views: &[View] =
            if self.mirrored.is_some() { &[View::Plain, View::FirstUnchanged] } else { &[view] };
        self.feeder.stage(dev, set, ids, 0, views)
    }

    /// Queues predictions for the `n` images that are staged, and returns their slot (n, size,
    /// size).
    fn predict_staged(
        &mut self,
        dev: &mut dyn Engine,
        net: &Network,
        n: usize,
        classifier: Classifier,
        view: View,
    ) -> Result<Slot<u16>> {
        let side = self.feeder.size();
        let pred = self.pred.part(0, n * side * side);
        let Some(mirrored) = &self.mirrored else {
            let program = self.programs.of(n);
            self.feeder.render(dev, program.x, n, 0, view)?;
            program.forward(dev, net)?;
            let (height, width, input) = (side, side, program.plain());
            let args = HeadPredict { pred, height, width, input, classifier };
            head_predict(dev, &program.head, args)?;
            return Ok(pred);
        };
        let program = mirrored.of(2 * n);
        let whole = Crop::whole(side / STRIDE);
        let crops = [vec![whole; n], vec![Crop { flip: 1, ..whole }; n]].concat();
        dev.write(program.crops, &crops)?;
        let part = program.x.len / 2;
        self.feeder.render(dev, program.x.part(0, part), n, 0, View::Plain)?;
        self.feeder.render(dev, program.x.part(part, part), n, 1, View::FirstUnchanged)?;
        program.forward(dev, net)?;
        let (height, width, input) = (side, side, program.warped());
        let args = HeadPredict { pred, height, width, input, classifier };
        head_predict(dev, &program.head, args)?;
        Ok(pred)
    }
}
