//! The network on photos: a program for each size of input, and clusters at the photo's own size.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use image::RgbImage;

use crate::base::{Error, Result};
use crate::cli::segment::fuse::{Look, best, mean};
use crate::cli::segment::photo::{Input, Photo};
use crate::data::{decode, transform};
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
    /// Whether photos are turned as their EXIF orientation says.
    pub exif: bool,
    /// Bytes of host memory for each pixel of a photo beside the plan.
    pub beside: usize,
}

/// What the network makes of a photo.
pub struct Segmented {
    pub picture: RgbImage,
    /// (height, width), its clusters.
    pub labels: Vec<u16>,
    /// The scores (h, w, k) at the size of the network's output, if they were asked for.
    pub scores: Option<(Input, Vec<f32>)>,
}

/// A network with a program for each size of input. The programs use the same memory, one after the
/// other.
pub struct Segmenter {
    pub loaded: Loaded,
    looks: Looks,
    /// The network's program and the rendering op, by height and width of the input.
    programs: BTreeMap<Input, (Program, Plan<ViewSpec>)>,
    /// Whether the network reads Sobel gradients.
    sobel: bool,
    /// (height, width, 3), the photo at the input's size.
    image: Slot<u8>,
    /// (1), the number 0.
    index: Slot<u32>,
    /// (height, width), the clusters of the photo at its own size.
    pred: Slot<u16>,
    /// (h, w, k), the scores of a look, where several are averaged or scores are wanted.
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
            let Input { h, w } = input;
            if let Entry::Vacant(entry) = programs.entry(input) {
                let spec = ProgramSpec { n: 1, h, w, groups: 1, k, merge, unit };
                let program = Program::plan(dev, &mut layout, &loaded.net, spec, Mode::Eval)?;
                let channels = recipe.architecture.input();
                let view = ViewSpec { n: 1, sh: h, sw: w, h, w, channels };
                entry.insert((program, plan_view(dev, view)?));
            }
        }
        let input = programs.keys().map(|input| input.h * input.w).max().unwrap_or(1);
        let image = layout.take(Pool::Staging, "image", input * 3);
        let index = layout.take(Pool::Staging, "image index", 1);
        let pixels = photos.iter().map(Photo::pixels).max().unwrap_or(1);
        let several = looks.flip || photos.iter().any(|photo| photo.inputs.len() > 1);
        let (mut scores, mut pred) = (None, pixels);
        if several || looks.scores {
            let map = input / (STRIDE * STRIDE) * k;
            scores = Some(layout.take(Pool::State, "scores", map));
            pred = 0;
            let maps = photos.iter().map(|photo| photo.inputs.len()).max().unwrap_or(1);
            let maps = maps * if looks.flip { 2 } else { 1 } + 1;
            layout.beside("scores of each look", maps * map * size_of::<f32>() + PRED * pixels);
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
        let (size, k) = (Input { h: photo.height, w: photo.width }, classifier.k);
        let (labels, scores) = if let Some(slot) = self.scores {
            let mut looks = Vec::new();
            for &input in &photo.inputs {
                let pixels = transform::resize(&rgb, input.w, input.h);
                looks.push(self.look(dev, slot, input, &pixels, false, classifier)?);
                if self.looks.flip {
                    let pixels = mirror(&pixels, input.w, 3);
                    looks.push(self.look(dev, slot, input, &pixels, true, classifier)?);
                }
            }
            let at = looks[0].size;
            let scores = self.looks.scores.then(|| (at, mean(&looks, k, at)));
            (best(&looks, k, size), scores)
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
        let picture = RgbImage::from_raw(size.w as u32, size.h as u32, rgb.pixels);
        let picture = picture.ok_or_else(|| {
            Error::file(&photo.path, "the file changed while it was read", "try again")
        })?;
        Ok(Segmented { picture, labels, scores })
    }

    /// Runs the network on a picture (h, w, 3).
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

    /// The scores of a picture (h, w, 3), in the memory `slot` and then on the host.
    fn look(
        &self,
        dev: &mut dyn Engine,
        slot: Slot<f32>,
        input: Input,
        pixels: &[u8],
        mirrored: bool,
        classifier: Classifier,
    ) -> Result<Look> {
        self.forward(dev, input, pixels)?;
        let program = &self.programs[&input].0;
        let size = Input { h: input.h / STRIDE, w: input.w / STRIDE };
        let scores = slot.part(0, size.h * size.w * classifier.k);
        head_scores(dev, &program.head, HeadScores { scores, input: program.plain(), classifier })?;
        Ok(Look { size, scores: dev.read(scores)?, mirrored })
    }
}
