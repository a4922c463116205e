//! Predicted clusters of pictures in host memory, by any predictor, and measurements of them.

use crate::base::{BySize, Result};
use crate::data::transform::resize;
use crate::data::{EvalStore, ImageStore, decode::Rgb, large::Alone};
use crate::device::ops::{
    Classifier, HeadPredict, Plan, ViewRender, ViewSobel, ViewSpec, head_predict, plan_view,
    view_render, view_sobel,
};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::eval::unlabelled::{Change, Tally, centre, mirror, near_edges};
use crate::eval::{Confusion, Unlabelled};
use crate::method::{Tick, program_spec};
use crate::net::{Mode, Network, Program, ProgramSpec};
use crate::recipe::Recipe;

/// A way to assign the pixels of pictures to clusters.
pub trait Predictor {
    /// Number of clusters of each of its classifiers.
    fn clusters(&self) -> usize;

    /// Predicts clusters (n, `out`, `out`) for square pictures (n, `side`, `side`, 3), once for
    /// each of the predictor's classifiers.
    fn predict(&mut self, pictures: &[u8], side: usize, out: usize) -> Result<Vec<Vec<u16>>>;
}

/// The predictor that puts all pixels into one cluster.
pub struct Constant;

impl Predictor for Constant {
    fn clusters(&self) -> usize {
        1
    }

    fn predict(&mut self, pictures: &[u8], side: usize, out: usize) -> Result<Vec<Vec<u16>>> {
        Ok(vec![vec![0; pictures.len() / (3 * side * side) * out * out]])
    }
}

/// The other input size at which predictions are compared: three quarters of `size`, rounded down
/// to a multiple of 32. If `size` is below 64, twice `size`.
pub fn other_size(size: usize) -> usize {
    if size < 64 { 2 * size } else { size * 3 / 4 / 32 * 32 }
}

/// Counts the confusion matrix of each of the predictor's classifiers over the whole set, read
/// `batch` images at a time.
pub fn confusions(
    predictor: &mut dyn Predictor,
    set: &EvalStore,
    batch: usize,
    tick: Tick,
) -> Result<Vec<Confusion>> {
    let mut all = Vec::new();
    let mut labels = Vec::new();
    each_batch(&set.images, batch, |ids, pictures, side| {
        labels.resize(ids.len() * side * side, 0);
        set.gather_labels(ids, &mut labels)?;
        let maps = predictor.predict(pictures, side, side)?;
        all.resize(maps.len(), Confusion::new(set.taxonomy.classes.len(), predictor.clusters()));
        all.iter_mut()
            .zip(&maps)
            .try_for_each(|(m, map): (&mut Confusion, _)| m.add(&labels, map))?;
        tick(ids.len())
    })?;
    Ok(all)
}

/// Measures each of the predictor's classifiers without labels, over the whole set, read `batch`
/// images at a time. The predictor is asked at the pictures' side and at its [`other_size`].
pub fn unlabelled(
    predictor: &mut dyn Predictor,
    set: &ImageStore,
    batch: usize,
    tick: Tick,
) -> Result<Vec<Unlabelled>> {
    let mut all: Vec<Tally> = Vec::new();
    each_batch(set, batch, |ids, pictures, side| {
        let (other, window) = (other_size(side), side / 4 * 3);
        let bytes = 3 * side * side;
        let changed = |change: &dyn Fn(&[u8]) -> Vec<u8>| {
            pictures.chunks_exact(bytes).flat_map(change).collect::<Vec<_>>()
        };
        let scaled = |pixels: Vec<u8>, from: usize, to: usize| {
            resize(&Rgb { width: from, height: from, pixels, alone: Alone::default() }, to, to)
        };
        let plain = predictor.predict(pictures, side, side)?;
        let mirrored = predictor.predict(&changed(&|p| mirror(p, side, 3)), side, side)?;
        let enlarged = changed(&|p| scaled(centre(p, side, window, 3), window, side));
        let enlarged = predictor.predict(&enlarged, side, window)?;
        let resized =
            predictor.predict(&changed(&|p| scaled(p.to_vec(), side, other)), other, side)?;
        let near: Vec<Vec<bool>> =
            pictures.chunks_exact(bytes).map(|p| near_edges(p, side)).collect();
        all.resize(plain.len(), Tally::new(predictor.clusters()));
        for (c, tally) in all.iter_mut().enumerate() {
            tally.compare(Change::Mirror, &plain[c], &mirror(&mirrored[c], side, 1));
            tally.compare(Change::Size, &plain[c], &resized[c]);
            let maps =
                plain[c].chunks_exact(side * side).zip(enlarged[c].chunks_exact(window * window));
            for ((map, enlarged), near) in maps.zip(&near) {
                tally.compare(Change::Crop, &centre(map, side, window, 1), enlarged);
                tally.add(map, near, side);
            }
        }
        tick(ids.len())
    })?;
    Ok(all.iter().map(Tally::finish).collect())
}

/// Calls `f` with the numbers of up to `batch` pictures, the pictures (n, side, side, 3) and their
/// side, until all were seen. Fails with the first error.
pub fn each_batch(
    set: &ImageStore,
    batch: usize,
    mut f: impl FnMut(&[u32], &[u8], usize) -> Result<()>,
) -> Result<()> {
    let mut pictures = Vec::new();
    let ids: Vec<u32> = (0..set.len() as u32).collect();
    for ids in ids.chunks(batch) {
        pictures.resize(ids.len() * 3 * set.size() * set.size(), 0);
        set.gather(ids, &mut pictures)?;
        f(ids, &pictures, set.size())?;
    }
    Ok(())
}

/// Programs that run a network on square pictures in host memory, for some sizes.
pub struct Frames {
    batch: usize,
    /// Whether the network reads Sobel gradients.
    sobel: bool,
    /// The programs and their rendering ops, by side.
    programs: BySize<(Program, Plan<ViewSpec>)>,
    /// (batch, side, side, 3), the pictures on the device.
    pictures: Slot<u8>,
    /// (batch), the numbers 0, 1, 2, …
    index: Slot<u32>,
}

/// The sizes of pictures that [`Frames`] are planned for.
#[derive(Clone, Copy, Debug)]
pub struct FramesShape<'a> {
    /// Number of pictures at a time.
    pub batch: usize,
    /// Every side of pictures, in pixels.
    pub sides: &'a [usize],
}

impl FramesShape<'_> {
    /// The largest side.
    pub fn largest(&self) -> usize {
        self.sides.iter().max().copied().unwrap_or(0)
    }
}

impl Frames {
    /// Plans the network's programs for the features and clusters of `recipe`, in the given mode.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        recipe: &Recipe,
        shape: FramesShape,
        mode: Mode,
    ) -> Result<Self> {
        let (n, channels, largest) = (shape.batch, recipe.architecture.input(), shape.largest());
        let programs = BySize::plan(shape.sides.iter().copied(), |side| {
            let spec = ProgramSpec { n, h: side, w: side, ..program_spec(recipe) };
            let view = ViewSpec { n, sh: side, sw: side, h: side, w: side, channels };
            Ok((Program::plan(dev, layout, net, spec, mode)?, plan_view(dev, view)?))
        })?;
        Ok(Frames {
            batch: n,
            sobel: recipe.architecture.sobel,
            programs,
            pictures: layout.take(Pool::Staging, "pictures", n * 3 * largest * largest),
            index: layout.take(Pool::Staging, "picture index", n),
        })
    }

    /// Runs the network on up to `batch` pictures (n, `side`, `side`, 3). Returns the program,
    /// which has `batch` images; the outputs of those from n on mean nothing.
    pub fn forward(
        &self,
        dev: &mut dyn Engine,
        net: &Network,
        pictures: &[u8],
        side: usize,
    ) -> Result<&Program> {
        let (program, view) = self.programs.of(side);
        let (x, index) = (program.x, self.index);
        let images = self.pictures.part(0, self.batch * 3 * side * side);
        dev.write(images, pictures)?;
        dev.write(index, &Vec::from_iter(0..self.batch as u32))?;
        view_render(
            dev,
            view,
            ViewRender { x, kept: None, images, index, photo: None, crops: None },
        )?;
        if self.sobel {
            view_sobel(dev, view, ViewSobel { x })?;
        }
        program.forward(dev, net)?;
        Ok(program)
    }

    /// The largest number of pictures that [`Frames::forward`] takes.
    pub fn batch(&self) -> usize {
        self.batch
    }
}

/// A predictor by a trained network with batch norm folded, and its classifier.
pub struct NetworkPredictor<'a> {
    /// The engine that the network runs on.
    pub dev: &'a mut dyn Engine,
    /// The network.
    pub net: &'a Network,
    /// Its programs.
    pub frames: &'a Frames,
    /// The classifier of its features.
    pub classifier: Classifier,
    /// Memory for `batch` predictions at the largest size that is asked for.
    pub pred: Slot<u16>,
}

impl Predictor for NetworkPredictor<'_> {
    fn clusters(&self) -> usize {
        self.classifier.k
    }

    fn predict(&mut self, pictures: &[u8], side: usize, out: usize) -> Result<Vec<Vec<u16>>> {
        let NetworkPredictor { dev, net, frames, classifier, pred } = self;
        let (pred, classifier) = (pred.part(0, frames.batch * out * out), *classifier);
        let mut maps = Vec::new();
        for pictures in pictures.chunks(frames.batch * 3 * side * side) {
            let program = frames.forward(*dev, net, pictures, side)?;
            let (height, width, input) = (out, out, program.plain());
            let args = HeadPredict { pred, height, width, input, classifier };
            head_predict(*dev, &program.head, args)?;
            let map = dev.read(pred)?;
            maps.extend_from_slice(&map[..pictures.len() / (3 * side * side) * out * out]);
        }
        Ok(vec![maps])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A predictor of clusters by a pixel's column alone (in `bands` bands), and by its brightness
    /// alone.
    struct Fake {
        bands: usize,
    }

    impl Predictor for Fake {
        fn clusters(&self) -> usize {
            self.bands
        }

        fn predict(&mut self, pictures: &[u8], side: usize, out: usize) -> Result<Vec<Vec<u16>>> {
            let n = pictures.len() / (3 * side * side);
            let band = |i: usize| (i % out * self.bands / out) as u16;
            let bright = |i: usize| {
                let (image, x, y) =
                    (i / (out * out), i % out * side / out, i / out % out * side / out);
                u16::from(pictures[3 * ((image * side + y) * side + x)] >= 128)
            };
            let pixels = 0..n * out * out;
            Ok(vec![
                pixels.clone().map(|i| band(i % (out * out))).collect(),
                pixels.map(bright).collect(),
            ])
        }
    }

    #[test]
    fn what_is_compared_lies_in_the_same_place() {
        let set = ImageStore::noise(5, 64, 1);
        let mut seen = 0;
        let mut tick = |n| {
            seen += n;
            Ok(())
        };
        let all = unlabelled(&mut Fake { bands: 4 }, &set, 2, &mut tick).unwrap();
        assert_eq!((seen, all.len()), (5, 2));
        // Bands end at columns 16, 32, 48 of the picture, which are columns 8, 24, 40 of its
        // centre, whereas those of the enlarged centre end at 12, 24, 36.
        assert_eq!((all[0].mirror, all[0].size), (0.0, 100.0));
        assert!((all[0].crop - 100.0 * 40.0 / 48.0).abs() <= 1e-9, "{:?}", all[0]);
        assert_eq!((all[0].used, all[0].largest), (4, 25.0));
        // Noise is mirrored exactly, but resizing makes another noise of it.
        assert_eq!(all[1].mirror, 100.0);
        assert!(
            (50.0..95.0).contains(&all[1].crop) && (50.0..95.0).contains(&all[1].size),
            "{:?}",
            all[1]
        );
    }

    #[test]
    fn the_other_size_is_another_multiple_of_32() {
        assert_eq!([32, 64, 96, 128, 256, 320].map(other_size), [64, 32, 64, 96, 192, 224]);
    }
}
