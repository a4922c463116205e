//! The search for the nearest neighbors of some pixels among all pixels of a data set, by the
//! cosine of their features. It is exact, and keeps a running list of the best N on the device.

use crate::augment::{Augment, Feeder, FeederSpec, View};
use crate::base::{BySize, Result};
use crate::data::ImageStore;
use crate::device::ops::{
    Classifier, HeadFeatures, HeadScores, Plan, TopSpec, TopUpdate, head_features, head_scores,
    plan_top, top_update,
};
use crate::device::{Act, Engine, Layout, Pool, Slot};
use crate::method::{Batching, Programs, Tick, program_spec};
use crate::net::{FEATURES, Mode, Network, Program, ProgramSpec, STRIDE};
use crate::recipe::Recipe;

/// A pixel of the feature map of an image, and its cosine with a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Cosine with the query, −1 to 1.
    pub score: f32,
    /// Number of the image in the data set.
    pub image: usize,
    /// Column in the feature map. `y`: row.
    pub x: usize,
    pub y: usize,
}

/// A search in a set of square images.
pub struct Search {
    /// The programs for the images that are searched.
    programs: Programs,
    /// The program for the image of a query.
    one: Program,
    feeder: Feeder,
    /// Number of images in a full batch.
    batch: usize,
    /// (size/4, size/4, FEATURES), the features of a query's image.
    features: Slot<Act>,
    /// The features of the queries as a classifier. They have length 1, so that its scores are
    /// cosines.
    queries: Classifier,
    /// (pixels of a batch, queries), cosines.
    scores: Slot<f32>,
    /// (queries, nearest), the best cosines so far.
    best: Slot<f32>,
    /// (queries, nearest), the pixels that they belong to: image · pixels of an image + pixel.
    places: Slot<u32>,
    /// The plan of the running list, by number of images.
    plans: BySize<Plan<TopSpec>>,
}

/// The size of a search.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Number of queries.
    pub queries: usize,
    /// Number of neighbors to find for each query.
    pub nearest: usize,
    /// Whether several pixels of one image may be found, or only its best one.
    pub every_pixel: bool,
}

impl Search {
    /// Plans a search in images of `size`² pixels. Fails on more neighbors or queries than
    /// [`plan_top`] allows.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        recipe: &Recipe,
        batching: Batching,
        size: usize,
        Wanted { queries: q, nearest: n, every_pixel }: Wanted,
    ) -> Result<Self> {
        // Features are normalised to length 1 here, whether the recipe does it or not.
        let spec = ProgramSpec { h: size, w: size, k: q, unit: true, ..program_spec(recipe) };
        let programs = Programs::plan(dev, layout, net, batching, 1, spec, Mode::Eval)?;
        let one = Program::plan(dev, layout, net, ProgramSpec { n: 1, ..spec }, Mode::Eval)?;
        let spec = FeederSpec {
            augment: Augment::none(),
            seed: 0,
            stored: size,
            size,
            channels: recipe.architecture.input(),
            batches: &[&batching.sizes()[..], &[1]].concat(),
            repeated: &[],
        };
        let mut feeder = Feeder::plan(dev, layout, spec)?;
        feeder.place_batches(dev, layout);
        let (pixels, full) = ((size / STRIDE).pow(2), batching.full());
        let group = if every_pixel { 1 } else { pixels };
        let plans = BySize::plan(batching.sizes(), |images| {
            plan_top(dev, TopSpec { rows: images * pixels, q, n, group })
        })?;
        let features = layout.acts(Pool::State, "features", pixels * FEATURES);
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let queries =
            Classifier { w: state("queries", q * FEATURES), b: state("no bias", q), k: q };
        Ok(Search {
            programs,
            one,
            feeder,
            batch: full,
            features,
            queries,
            scores: state("scores", full * pixels * q),
            best: state("best scores", q * n),
            places: layout.take(Pool::State, "best places", q * n),
            plans,
        })
    }

    /// The feature (FEATURES), of length 1, at pixel (x, y) of the feature map of a picture (size,
    /// size, 3).
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
        Ok(dev.read_acts(self.features)?[at * FEATURES..][..FEATURES].to_vec())
    }

    /// Finds the nearest neighbors of each query (FEATURES), the nearest first. Among equal ones
    /// the earlier image, row and column comes first. A list is shorter if there are not as many.
    pub fn run(
        &mut self,
        dev: &mut dyn Engine,
        net: &Network,
        set: &ImageStore,
        queries: &[Vec<f32>],
        tick: Tick,
    ) -> Result<Vec<Vec<Neighbor>>> {
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
        let found: Vec<Option<Neighbor>> = best
            .into_iter()
            .zip(places)
            .map(|(score, place)| {
                let (image, at) = (place as usize / pixels, place as usize % pixels);
                (place != u32::MAX).then_some(Neighbor { score, image, x: at % side, y: at / side })
            })
            .collect();
        let n = found.len() / self.queries.k;
        Ok(found.chunks(n).map(|list| list.iter().flatten().copied().collect()).collect())
    }
}
