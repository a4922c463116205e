//! Nearest neighbours of pixels among all pixels of a set, by the cosine of their features: exact,
//! a running top N on the device.

use crate::augment::{Augment, Feeder, FeederSpec, View};
use crate::base::{BySize, Result};
use crate::data::ImageStore;
use crate::device::ops::{
    Classifier, HeadFeatures, HeadScores, Plan, TopSpec, TopUpdate, head_features, head_scores,
    plan_top, top_update,
};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::method::{Batching, Programs, Tick, geometry};
use crate::net::{FEATURES, Mode, Network, Program, ProgramSpec, STRIDE};
use crate::recipe::Recipe;

/// A pixel of the feature map of an image, and its cosine with a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    pub score: f32,
    pub image: usize,
    pub x: usize,
    pub y: usize,
}

/// Searches a set of square images.
pub struct Search {
    programs: Programs,
    /// For the image of a query.
    one: Program,
    feeder: Feeder,
    batch: usize,
    /// Of an image.
    features: Slot<f32>,
    /// Unit features of the queries: their scores are cosines.
    queries: Classifier,
    scores: Slot<f32>,
    best: Slot<f32>,
    places: Slot<u32>,
    /// By number of images.
    plans: BySize<Plan<TopSpec>>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub queries: usize,
    /// Nearest of each query.
    pub nearest: usize,
    /// Every pixel of an image, or the best of it alone.
    pub every_pixel: bool,
}

impl Search {
    /// In images of `size`² pixels.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        recipe: &Recipe,
        batching: Batching,
        size: usize,
        Wanted { queries: q, nearest: n, every_pixel }: Wanted,
    ) -> Result<Self> {
        // Directions, whatever the recipe makes of features' lengths.
        let geometry = ProgramSpec { h: size, w: size, k: q, unit: true, ..geometry(recipe) };
        let programs = Programs::plan(dev, layout, net, batching, 1, geometry, Mode::Eval)?;
        let one = Program::plan(dev, layout, net, ProgramSpec { n: 1, ..geometry }, Mode::Eval)?;
        let spec = FeederSpec {
            augment: Augment::none(),
            seed: 0,
            stored: size,
            size,
            channels: recipe.architecture.input(),
            batches: &[&batching.sizes()[..], &[1]].concat(),
        };
        let mut feeder = Feeder::plan(dev, layout, spec)?;
        feeder.place_batches(dev, layout);
        let (pixels, full) = ((size / STRIDE).pow(2), batching.full());
        let group = if every_pixel { 1 } else { pixels };
        let plans = BySize::plan(batching.sizes(), |images| {
            plan_top(dev, TopSpec { rows: images * pixels, q, n, group })
        })?;
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let queries =
            Classifier { w: state("queries", q * FEATURES), b: state("no bias", q), k: q };
        Ok(Search {
            programs,
            one,
            feeder,
            batch: full,
            features: state("features", pixels * FEATURES),
            queries,
            scores: state("scores", full * pixels * q),
            best: state("best scores", q * n),
            places: layout.take(Pool::State, "best places", q * n),
            plans,
        })
    }

    /// The unit feature of pixel (x, y) of the feature map of a picture, u8 (size, size, 3).
    pub fn feature(
        &mut self,
        dev: &mut dyn Engine,
        net: &Network,
        picture: &[u8],
        (x, y): (usize, usize),
    ) -> Result<Vec<f32>> {
        self.feeder.stage_picture(dev, picture)?;
        self.feeder.render(dev, self.one.x, 1, 0, View::Plain)?;
        self.one.forward(dev, net)?;
        let (features, input) = (self.features, self.one.plain());
        head_features(dev, &self.one.head, HeadFeatures { features, input })?;
        let at = y * (self.feeder.size() / STRIDE) + x;
        Ok(dev.read(self.features)?[at * FEATURES..][..FEATURES].to_vec())
    }

    /// The nearest of each query, the nearest first; of equal ones that in the earlier image, row,
    /// column. Fewer where there are not as many.
    pub fn run(
        &mut self,
        dev: &mut dyn Engine,
        net: &Network,
        set: &ImageStore,
        queries: &[Vec<f32>],
        tick: Tick,
    ) -> Result<Vec<Vec<Neighbour>>> {
        dev.write(self.queries.w, &queries.concat())?;
        dev.zero(self.queries.b)?;
        dev.write(self.best, &vec![f32::NEG_INFINITY; self.best.len])?;
        dev.write(self.places, &vec![u32::MAX; self.places.len])?;
        let side = self.feeder.size() / STRIDE;
        let pixels = side * side;
        let ids: Vec<u32> = (0..set.len() as u32).collect();
        for ids in ids.chunks(self.batch) {
            self.feeder.stage(dev, set, ids, 0, &[View::Plain])?;
            let (n, program) = (ids.len(), self.programs.of(ids.len()));
            self.feeder.render(dev, program.x, n, 0, View::Plain)?;
            program.forward(dev, net)?;
            let scores = self.scores.part(0, n * pixels * self.queries.k);
            let (input, classifier) = (program.plain(), self.queries);
            head_scores(dev, &program.head, HeadScores { scores, input, classifier })?;
            let (best, places) = (self.best, self.places);
            let first = ids[0] as usize * pixels;
            top_update(dev, self.plans.of(n), TopUpdate { best, places, scores, first })?;
            tick(n)?;
        }
        let (best, places) = (dev.read(self.best)?, dev.read(self.places)?);
        let found: Vec<Option<Neighbour>> = best
            .into_iter()
            .zip(places)
            .map(|(score, place)| {
                let (image, at) = (place as usize / pixels, place as usize % pixels);
                (place != u32::MAX).then_some(Neighbour {
                    score,
                    image,
                    x: at % side,
                    y: at / side,
                })
            })
            .collect();
        let n = found.len() / self.queries.k;
        Ok(found.chunks(n).map(|list| list.iter().flatten().copied().collect()).collect())
    }
}
