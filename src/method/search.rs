//! Nearest neighbours of pixels among all pixels of a set, by the cosine of their features: exact,
//! a running top N on the device.

use crate::augment::{Augment, Feeder, InputShape, View};
use crate::base::Result;
use crate::data::ImageStore;
use crate::device::ops::{Backend, Classifier, TopSpec};
use crate::device::{Layout, Pool, Slot};
use crate::method::{Programs, Tick, batch_sizes, geometry};
use crate::net::{FEATURES, Geometry, Mode, Network, Program};
use crate::recipe::Recipe;

/// Pixels of the input in a pixel of the feature map, along each side.
pub const STRIDE: usize = 4;

/// A pixel of the feature map of an image, and its cosine with a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    pub score: f32,
    pub image: usize,
    pub x: usize,
    pub y: usize,
}

/// Searches a set of square images.
pub struct Search<B: Backend> {
    programs: Programs<B>,
    /// For the image of a query.
    one: Program<B>,
    feeder: Feeder<B>,
    batch: usize,
    /// Of an image.
    features: Slot<f32>,
    /// Unit features of the queries: their scores are cosines.
    queries: Classifier,
    scores: Slot<f32>,
    best: Slot<f32>,
    places: Slot<u32>,
    /// By number of images.
    plans: Vec<(usize, B::TopPlan)>,
}

impl<B: Backend> Search<B> {
    /// For `total` images of `size`² pixels, in batches of `batch`; `q` queries and the `n` nearest
    /// of each, of every image the best pixel alone or `every` one.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        net: &Network<B>,
        recipe: &Recipe,
        (total, batch, size): (usize, usize, usize),
        (q, n, every): (usize, usize, bool),
    ) -> Result<Self> {
        // Directions, whatever the recipe makes of features' lengths.
        let geometry = Geometry { h: size, w: size, k: q, unit: true, ..geometry(recipe) };
        let programs = Programs::plan(dev, layout, net, (total, batch, 1), geometry, Mode::Eval)?;
        let one = Program::plan(dev, layout, net, Geometry { n: 1, ..geometry }, Mode::Eval)?;
        let batches: Vec<usize> =
            batch_sizes(total, batch).into_iter().filter(|&n| n > 0).collect();
        let shape = InputShape { stored: size, size, channels: recipe.architecture.input() };
        let feeder = Feeder::plan(
            dev,
            layout,
            Augment::none(),
            0,
            shape,
            &[&batches[..], &[1]].concat(),
            None,
        )?;
        let pixels = (size / STRIDE).pow(2);
        let mut plans = Vec::new();
        for &images in &batches {
            let spec =
                TopSpec { rows: images * pixels, q, n, group: if every { 1 } else { pixels } };
            plans.push((images, dev.plan_top(spec)?));
        }
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let queries =
            Classifier { w: state("queries", q * FEATURES), b: state("no bias", q), k: q };
        Ok(Search {
            programs,
            one,
            feeder,
            batch: batches[0],
            features: state("features", pixels * FEATURES),
            queries,
            scores: state("scores", batches[0] * pixels * q),
            best: state("best scores", q * n),
            places: layout.take(Pool::State, "best places", q * n),
            plans,
        })
    }

    /// The unit feature of pixel (x, y) of the feature map of a picture, u8 (size, size, 3).
    pub fn feature(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
        picture: &[u8],
        (x, y): (usize, usize),
    ) -> Result<Vec<f32>> {
        self.feeder.stage(dev, &[0], 0, &[View::Plain], |out| {
            out.copy_from_slice(picture);
            Ok(())
        })?;
        self.feeder.render(dev, self.one.x, 1, 0, View::Plain)?;
        self.one.forward(dev, net)?;
        dev.head_features(&self.one.head, self.features, self.one.plain())?;
        let at = y * (self.feeder.size() / STRIDE) + x;
        Ok(dev.read(self.features)?[at * FEATURES..][..FEATURES].to_vec())
    }

    /// The nearest of each query, the nearest first; of equal ones that in the earlier image, row,
    /// column. Fewer where there are not as many.
    pub fn run(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
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
            self.feeder.stage(dev, ids, 0, &[View::Plain], |out| set.gather(ids, out))?;
            let (n, program) = (ids.len(), self.programs.of(ids.len()));
            self.feeder.render(dev, program.x, n, 0, View::Plain)?;
            program.forward(dev, net)?;
            let scores = self.scores.part(0, n * pixels * self.queries.k);
            dev.head_scores(&program.head, scores, program.plain(), self.queries)?;
            let (_, plan) =
                self.plans.iter().find(|(m, _)| *m == n).expect("every batch size was planned");
            dev.top_update(plan, self.best, self.places, scores, ids[0] as usize * pixels)?;
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
