//! The network on photos: a program for each size of input or tile, and clusters at the photo's own
//! size.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use image::RgbImage;

use crate::base::{Error, Result};
use crate::cli::segment::fuse::{Look, best, mean};
use crate::cli::segment::photo::{Input, Photo};
use crate::cli::segment::refine::{self, Guided};
use crate::cli::segment::tiles::{self, Mosaic};
use crate::data::decode::{self, Rgb};
use crate::data::transform;
use crate::device::ops::{
    Classifier, HeadPredict, HeadScores, Plan, ViewRender, ViewSobel, ViewSpec, head_predict,
    head_scores, plan_view, view_render, view_sobel,
};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::eval::unlabelled::mirror;
use crate::net::{Mode, Program, ProgramSpec, STRIDE};
use crate::recipe::Recipe;
use crate::train::Loaded;

/// Bytes of each pixel's cluster in the plan.
pub const PRED: usize = size_of::<u16>();

/// How photos are looked at.
#[derive(Clone, Copy)]
pub struct Looks {
    /// Whether the mirror image is, too.
    pub flip: bool,
    /// Whether scores are wanted.
    pub scores: bool,
    /// Whether borders of clusters follow edges of the photo.
    pub refine: bool,
    /// The most pixels of a side that the network sees at once; a larger input is cut into tiles.
    pub tile: usize,
    /// Whether photos are turned as their EXIF orientation says.
    pub exif: bool,
    /// Bytes of host memory for each pixel of a photo beside the plan.
    pub beside: usize,
}

impl Looks {
    /// Bytes of host memory for the scores of all looks at a photo, and for what is made of them.
    fn maps(&self, photo: &Photo, k: usize) -> usize {
        let bytes = |input: &Input| {
            let map = tiles::map(*input);
            map.h * map.w * k * size_of::<f32>()
        };
        let looks = if self.flip { 2 } else { 1 };
        let all: usize = photo.inputs.iter().map(bytes).sum();
        let largest = photo.inputs.iter().map(bytes).max().unwrap_or(0);
        looks * all + largest * (2 + if self.refine { refine::maps(k) } else { 0 })
    }
}

/// Scores of all clusters: the size of their map, and (h, w, k).
pub type Scores = (Input, Vec<f32>);

/// What the network makes of a photo.
pub struct Segmented {
    pub picture: RgbImage,
    /// (height, width), its clusters.
    pub labels: Vec<u16>,
    /// The scores at the size of the network's output, if they were asked for.
    pub scores: Option<Scores>,
}

/// The parts of a photo's short side that a region must have as many pixels as the square of, not
/// to be given to its surroundings: a square of 5 pixels in a photo of 320.
const LEAST: usize = 64;

/// A network with a program for each size of input. The programs use the same memory, one after the
/// other.
pub struct Segmenter {
    pub loaded: Loaded,
    looks: Looks,
    /// The network's program and the rendering op, by height and width of what it sees.
    programs: BTreeMap<Input, (Program, Plan<ViewSpec>)>,
    /// Whether the network reads Sobel gradients.
    sobel: bool,
    /// (height, width, 3), the photo or a tile of it at the input's size.
    image: Slot<u8>,
    /// (1), the number 0.
    index: Slot<u32>,
    /// (height, width), the clusters of the photo at its own size, if the device assigns them.
    pred: Slot<u16>,
    /// (h, w, k), the scores of a look or a tile, if the host assigns clusters.
    scores: Option<Slot<f32>>,
}

impl Segmenter {
    pub fn plan(
        dev: &mut dyn Engine,
        photos: &[Photo],
        recipe: &Recipe,
        looks: Looks,
    ) -> Result<Self> {
        let mut layout = Layout::new(dev.dtype());
        let loaded = Loaded::plan(&mut layout, recipe);
        let (k, merge, unit) = (recipe.clusters, recipe.merge, recipe.unit());
        let mut programs = BTreeMap::new();
        for &input in photos.iter().flat_map(|photo| &photo.inputs) {
            let tile = tiles::tile(input, looks.tile);
            if let Entry::Vacant(entry) = programs.entry(tile) {
                let Input { h, w } = tile;
                let spec = ProgramSpec { n: 1, h, w, groups: 1, k, merge, unit };
                let program = Program::plan(dev, &mut layout, &loaded.net, spec, Mode::Eval)?;
                let channels = recipe.architecture.input();
                let view = ViewSpec { n: 1, sh: h, sw: w, h, w, channels };
                entry.insert((program, plan_view(dev, view)?));
            }
        }
        let seen = programs.keys().map(|tile| tile.h * tile.w).max().unwrap_or(1);
        let image = layout.take(Pool::Staging, "image", seen * 3);
        let index = layout.take(Pool::Staging, "image index", 1);
        let pixels = photos.iter().map(Photo::pixels).max().unwrap_or(1);
        let several = |photo: &Photo| {
            photo.inputs.len() > 1 || photo.inputs[0] != tiles::tile(photo.inputs[0], looks.tile)
        };
        let (mut scores, mut pred) = (None, pixels);
        if looks.flip || looks.scores || looks.refine || photos.iter().any(several) {
            scores = Some(layout.take(Pool::State, "scores", seen / (STRIDE * STRIDE) * k));
            pred = 0;
            let maps = photos.iter().map(|photo| looks.maps(photo, k)).max().unwrap_or(0);
            layout.beside("scores of each look", maps + PRED * pixels);
        }
        let pred = layout.take(Pool::State, "predictions", pred);
        layout.beside("a photo, its labels and its overlay", looks.beside * pixels);
        dev.reserve(&layout)?;
        dev.write(index, &[0])?;
        let sobel = recipe.architecture.sobel;
        Ok(Segmenter { loaded, looks, programs, sobel, image, index, pred, scores })
    }

    /// Reads and segments a photo.
    pub fn segment(
        &mut self,
        dev: &mut dyn Engine,
        photo: &Photo,
        classifier: Classifier,
    ) -> Result<Segmented> {
        let rgb = decode::rgb(photo.file(), self.looks.exif).map_err(|e| e.at(&photo.path))?;
        let size = Input { h: photo.height, w: photo.width };
        if (rgb.height, rgb.width) != (size.h, size.w) {
            return Err(Error::file(
                &photo.path,
                "the file changed while it was read",
                "try again",
            ));
        }
        let (labels, scores) = if let Some(slot) = self.scores {
            self.assign(dev, slot, photo, &rgb, classifier)?
        } else {
            let input = photo.inputs[0];
            self.forward(dev, input, &transform::resize(&rgb, input.w, input.h))?;
            let program = &self.programs[&input].0;
            let (height, width, pred) = (size.h, size.w, self.pred.part(0, size.h * size.w));
            let input = program.plain();
            let args = HeadPredict { pred, height, width, input, classifier };
            head_predict(dev, &program.head, args)?;
            (dev.read(pred)?, None)
        };
        let picture = RgbImage::from_raw(size.w as u32, size.h as u32, rgb.pixels)
            .expect("pixels are (H, W, 3)");
        Ok(Segmented { picture, labels, scores })
    }

    /// The clusters of a photo from the mean of the scores of all looks at it, and these if they
    /// are wanted. The host does it: its cores hold the photo, and have to write what becomes of
    /// it.
    fn assign(
        &self,
        dev: &mut dyn Engine,
        slot: Slot<f32>,
        photo: &Photo,
        rgb: &Rgb,
        classifier: Classifier,
    ) -> Result<(Vec<u16>, Option<Scores>)> {
        let (mut looks, k) = (Vec::new(), classifier.k);
        for &input in &photo.inputs {
            let pixels = transform::resize(rgb, input.w, input.h);
            looks.push(self.look(dev, slot, input, &pixels, false, classifier)?);
            if self.looks.flip {
                let pixels = mirror(&pixels, input.w, 3);
                looks.push(self.look(dev, slot, input, &pixels, true, classifier)?);
            }
        }
        let sizes = looks.iter().map(|look| look.size);
        let at = sizes.max_by_key(|size| size.h * size.w).expect("a photo has an input");
        let Looks { scores, refine, .. } = self.looks;
        let mean = (scores || refine).then(|| mean(&looks, k, at));
        let size = Input { h: photo.height, w: photo.width };
        let labels = match &mean {
            Some(mean) if refine => {
                drop(looks);
                let mut labels = Guided::new(mean, at, k, rgb).labels(rgb);
                let least = (size.h.min(size.w) / LEAST).pow(2);
                refine::drop_small(&mut labels, size.w, least);
                labels
            }
            _ => best(&looks, k, size),
        };
        Ok((labels, mean.filter(|_| scores).map(|mean| (at, mean))))
    }

    /// Runs the network on a picture or tile (h, w, 3).
    fn forward(&self, dev: &mut dyn Engine, input: Input, pixels: &[u8]) -> Result<()> {
        let (program, view) = &self.programs[&input];
        let images = self.image.part(0, input.h * input.w * 3);
        let (x, index) = (program.x, self.index);
        dev.write(images, pixels)?;
        dev.write(index, &[0])?;
        view_render(
            dev,
            view,
            ViewRender { x, kept: None, images, index, photo: None, crops: None },
        )?;
        if self.sobel {
            view_sobel(dev, view, ViewSobel { x })?;
        }
        program.forward(dev, &self.loaded.net)
    }

    /// The scores of a picture (h, w, 3), a tile of it at a time in the memory `slot`, and then on
    /// the host.
    fn look(
        &self,
        dev: &mut dyn Engine,
        slot: Slot<f32>,
        input: Input,
        pixels: &[u8],
        mirrored: bool,
        classifier: Classifier,
    ) -> Result<Look> {
        let tile = tiles::tile(input, self.looks.tile);
        let program = &self.programs[&tile].0;
        let k = classifier.k;
        let scores = slot.part(0, tile.h / STRIDE * (tile.w / STRIDE) * k);
        let args = HeadScores { scores, input: program.plain(), classifier };
        let mut seen = |pixels: &[u8]| -> Result<Vec<f32>> {
            self.forward(dev, tile, pixels)?;
            head_scores(dev, &program.head, args)?;
            dev.read(scores)
        };
        let scores = if tile == input {
            seen(pixels)?
        } else {
            let mut mosaic = Mosaic::new(input, k);
            for corner in tiles::corners(input, tile) {
                mosaic.add(tile, corner, &seen(&tiles::cut(pixels, input.w, tile, corner))?);
            }
            mosaic.finish()
        };
        Ok(Look { size: tiles::map(input), scores, mirrored })
    }
}
