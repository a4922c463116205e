//! Predictions of a trained network: scores resampled to the label size, arg-max, confusion.

use crate::augment::{Augment, Feeder, InputShape, View, crop_labels};
use crate::base::rng::{Rng, Stream};
use crate::base::{Result, stop};
use crate::cluster::{MiniBatch, Schedule, Summary};
use crate::data::{EvalStore, ImageStore};
use crate::device::ops::{Backend, Classifier, Crop};
use crate::device::{Layout, Pool, Slot};
use crate::eval::Confusion;
use crate::method::{Programs, Tick, batch_sizes, geometry};
use crate::net::{FEATURES, Geometry, Mode, Network};
use crate::recipe::Recipe;

/// Evaluates classifiers on a set of square images with labels of the same size.
pub struct Evaluator<B: Backend> {
    programs: Programs<B>,
    /// For images and their mirror images together, where predictions are of both.
    mirrored: Option<Programs<B>>,
    feeder: Feeder<B>,
    batch: usize,
    pred: Slot<u16>,
    labels: Slot<u8>,
    counts: Slot<u32>,
    classes: usize,
    host: Vec<u8>,
    /// For a k-means of the set's own features.
    cluster: Option<MiniBatch<B>>,
}

impl<B: Backend> Evaluator<B> {
    /// For `total` images of `size`² pixels, in batches of `batch`, networks and clusters of
    /// `recipe`, and `classes` classes. `kmeans`: for a k-means of the set's own features, too.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        net: &Network<B>,
        recipe: &Recipe,
        (total, batch, size): (usize, usize, usize),
        classes: usize,
        kmeans: Option<Schedule>,
    ) -> Result<Self> {
        let k = recipe.clusters;
        let geometry = Geometry { h: size, w: size, k, ..geometry(recipe) };
        let programs = Programs::plan(dev, layout, net, (total, batch, 1), geometry, Mode::Eval)?;
        let [full, tail] = batch_sizes(total, batch);
        let feeder = Feeder::plan(
            dev,
            layout,
            recipe.augment,
            0,
            InputShape { stored: size, size, channels: recipe.architecture.input() },
            &[full, tail].into_iter().filter(|&n| n > 0).collect::<Vec<_>>(),
            None,
        )?;
        let cluster = kmeans.map(|schedule| {
            let points = total.min(schedule.init_batches.saturating_mul(full)) * (size / 4).pow(2);
            let points = layout.take(Pool::State, "k-means points", points * FEATURES);
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
            cluster,
        })
    }

    /// Scores are averaged over the picture and its mirror image from here on. Part of the plan,
    /// with the arguments of [`Evaluator::plan`].
    ///
    /// NOTE: they are linear in the features, so this is the average of features that later work
    /// predicts from, each view's divided by its norm first where the recipe's are.
    pub fn add_mirror(
        &mut self,
        dev: &mut B,
        layout: &mut Layout,
        net: &Network<B>,
        recipe: &Recipe,
        (total, batch, size): (usize, usize, usize),
    ) -> Result<()> {
        let geometry = Geometry { h: size, w: size, k: recipe.clusters, ..geometry(recipe) };
        self.mirrored =
            Some(Programs::plan(dev, layout, net, (total, batch, 2), geometry, Mode::Eval)?);
        self.draw_from(Augment { flip_p: 1.0, ..Augment::none() }, 0);
        Ok(())
    }

    /// The confusion of `classifier` over the whole set, pictures and label maps as `view` has
    /// them: plain, or changed and cut by the draws of `augment` and `seed`.
    pub fn run(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
        set: &EvalStore,
        (classifier, view): (Classifier, View),
        tick: Tick,
    ) -> Result<Confusion> {
        net.fold(dev)?;
        dev.zero(self.counts)?;
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
            let pred = self.predict_staged(dev, net, ids.len(), (classifier, view))?;
            dev.confusion(self.counts, pred, labels, classifier.k)?;
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            self.feeder.prefetch(dev, next, |out| set.images.gather(next, out))?;
            tick(ids.len())?;
        }
        let counts = dev.read(self.counts)?.into_iter().map(u64::from).collect();
        Ok(Confusion { classes: self.classes, clusters: classifier.k, counts })
    }

    /// What views that are not plain are drawn from.
    pub fn draw_from(&mut self, augment: Augment, seed: u64) {
        self.feeder.draw_from(augment, seed);
    }

    /// The label maps in `host`, cut as their pictures are.
    fn crop_labels(&mut self, ids: &[u32], view: View) {
        let side = self.feeder.size();
        for (map, crop) in
            self.host.chunks_mut(side * side).zip(self.feeder.input_crops(ids, 0, view))
        {
            let cut = crop_labels(map, side, crop, side);
            map.copy_from_slice(&cut);
        }
    }

    /// Predicted clusters (images, size, size) of the first `images` of the set.
    pub fn predict(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
        set: &ImageStore,
        classifier: Classifier,
        images: usize,
    ) -> Result<Vec<u16>> {
        net.fold(dev)?;
        let side = self.feeder.size();
        let mut out = Vec::new();
        let ids: Vec<u32> = (0..set.len() as u32).collect();
        // Whole batches only, because those are what programs were planned for.
        for ids in ids.chunks(self.batch).take_while(|ids| (ids[0] as usize) < images) {
            stop::check()?;
            self.stage(dev, set, ids, View::Plain)?;
            let pred = self.predict_staged(dev, net, ids.len(), (classifier, View::Plain))?;
            out.extend(dev.read(pred)?);
        }
        out.truncate(images * side * side);
        Ok(out)
    }

    /// Centroids of the set's own features, as a classifier without training would have them.
    pub fn cluster(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
        set: &ImageStore,
        centroids: Slot<f32>,
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
            dev.write(program.crops, &vec![Crop::whole(program.geometry.h / 4); ids.len()])?;
            self.feeder.render(dev, program.x, ids.len(), 0, View::Plain)?;
            program.forward(dev, net)?;
            cluster.push(dev, program, centroids, &mut rng, i + 1 == batches)?;
            tick(ids.len())?;
        }
        let summary = cluster.finish(dev);
        self.cluster = Some(cluster);
        summary
    }

    fn stage(&mut self, dev: &mut B, set: &ImageStore, ids: &[u32], view: View) -> Result<()> {
        // With the mirror's draws the second is the image mirrored, and nothing else.
        let views: &[View] =
            if self.mirrored.is_some() { &[View::Plain, View::FirstUnchanged] } else { &[view] };
        self.feeder.stage(dev, ids, 0, views, |out| set.gather(ids, out))
    }

    /// Predictions of the `n` images that are staged.
    fn predict_staged(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
        n: usize,
        (classifier, view): (Classifier, View),
    ) -> Result<Slot<u16>> {
        let side = self.feeder.size();
        let pred = self.pred.part(0, n * side * side);
        let Some(mirrored) = &self.mirrored else {
            let program = self.programs.of(n);
            self.feeder.render(dev, program.x, n, 0, view)?;
            program.forward(dev, net)?;
            dev.head_predict(&program.head, pred, (side, side), program.plain(), classifier)?;
            return Ok(pred);
        };
        let program = mirrored.of(2 * n);
        let whole = Crop::whole(side / 4);
        let crops = [vec![whole; n], vec![Crop { flip: 1, ..whole }; n]].concat();
        dev.write(program.crops, &crops)?;
        let part = program.x.len / 2;
        self.feeder.render(dev, program.x.part(0, part), n, 0, View::Plain)?;
        self.feeder.render(dev, program.x.part(part, part), n, 1, View::FirstUnchanged)?;
        program.forward(dev, net)?;
        dev.head_predict(&program.head, pred, (side, side), program.warped(), classifier)?;
        Ok(pred)
    }
}
