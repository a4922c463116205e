//! Views: stored 8-bit images, turned into the activations that the network reads, with a change of
//! colours, a crop and a flip, and normalisation.

use std::fmt;

use bytemuck::{Pod, Zeroable};

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, want, want_if};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// The mean of ImageNet's R, G and B in 0..1 (torchvision).
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// The standard deviation of ImageNet's R, G and B in 0..1 (torchvision).
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The sizes of views: images (m, sh, sw, 3) of u8 → x (n, h, w, channels), whose channels after
/// the first three are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewSpec {
    /// Number of views.
    pub n: usize,
    /// Height of a stored image. `sw`: its width.
    pub sh: usize,
    pub sw: usize,
    /// Height of a view. `w`: its width.
    pub h: usize,
    pub w: usize,
    /// Channels of the network's input: 4, or 8 with room for [`view_sobel`].
    pub channels: usize,
}

impl ViewSpec {
    /// Elements of the output.
    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.channels
    }

    /// Fails on sizes that no engine can run.
    fn check(&self) -> Result<()> {
        if [self.n, self.sh, self.sw, self.h, self.w].contains(&0) {
            let what = format!("{self:?} has no pixels");
            return Err(Error::input(what, "every size must be at least 1"));
        }
        if ![4, 8].contains(&self.channels) {
            let what = format!("views of {} channels", self.channels);
            return Err(Error::input(what, "views have 4 or 8 channels"));
        }
        Ok(())
    }
}

impl fmt::Display for ViewSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ViewSpec { n, sh, sw, h, w, .. } = self;
        write!(f, "{n}×{sh}×{sw} → {h}×{w}")
    }
}

/// The photometric change of one image. Colours are in 0..1 and clamped to it after each step; grey
/// is 0.299 R + 0.587 G + 0.114 B. The four jitter steps run in `order`, then grey, then blur.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Photo {
    /// Brightness factor b of x·b. 1 changes nothing.
    pub brightness: f32,
    /// Contrast factor c of m + (x − m)·c, where m is the mean grey of the whole image at this
    /// point. 1 changes nothing.
    pub contrast: f32,
    /// Saturation factor s of g + (x − g)·s, where g is the pixel's grey. 1 changes nothing.
    pub saturation: f32,
    /// Shift of the hue in turns of the HSV colour circle, in −0.5..0.5. 0 changes nothing (and
    /// skips the conversion to HSV).
    pub hue: f32,
    /// σ of the Gaussian blur, in pixels of the stored image; 0 is none. Its window has the radius
    /// ⌈3σ⌉ (at most the image's longer side) and is normalised; edges are replicated.
    pub sigma: f32,
    /// 1: every colour is replaced by its grey. 0: colours stay.
    pub grey: u32,
    /// The order of the four jitter steps, as 2-bit fields with the first step lowest: 0
    /// brightness, 1 contrast, 2 saturation, 3 hue.
    pub order: u32,
}

impl Photo {
    /// The order brightness, contrast, saturation, hue.
    pub const FIXED_ORDER: u32 = 0b11_10_01_00;
    /// A change that leaves the image as it is.
    pub const NONE: Photo = Photo {
        brightness: 1.0,
        contrast: 1.0,
        saturation: 1.0,
        hue: 0.0,
        sigma: 0.0,
        grey: 0,
        order: Self::FIXED_ORDER,
    };
}

/// A square window of a map, and whether it is mirrored: rows `top..top + side` and columns
/// `left..left + side` are resampled bilinearly (torch's `interpolate` with align_corners = false
/// and no antialias) to the output's side, then flipped horizontally if `flip` is 1. The window
/// lies inside of the map and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Crop {
    /// First row of the window. `left`: its first column.
    pub top: u32,
    pub left: u32,
    /// Side of the window, at least 1.
    pub side: u32,
    /// 1: the result is mirrored horizontally. 0: it is not.
    pub flip: u32,
}

impl Crop {
    /// The whole of a square map, for which resampling is the identity.
    pub fn whole(side: usize) -> Self {
        Crop { top: 0, left: 0, side: side as u32, flip: 0 }
    }
}

/// Where rendered views are kept in 8 bits, to be read again as images of their own.
#[derive(Clone, Copy, Debug)]
pub struct KeptViews {
    /// = (m, h, w, 3), m any number: colours of 0..1 as levels of 0..255, rounded. The row of
    /// each view is overwritten, others stay. w is a multiple of 4.
    pub pictures: Slot<u8>,
    /// (n), the row of each view; below m, and no two alike.
    pub places: Slot<u32>,
}

/// Arguments of [`view_render`].
#[derive(Clone, Copy, Debug)]
pub struct ViewRender {
    /// = (n, h, w, channels), the views.
    pub x: Slot<Act>,
    /// Where the views are kept as well. `None`: nowhere.
    pub kept: Option<KeptViews>,
    /// (m, sh, sw, 3), the stored RGB images; m is any number.
    pub images: Slot<u8>,
    /// (n), which image each view shows; below m.
    pub index: Slot<u32>,
    /// (n), changes of colours. `None`: colours stay.
    pub photo: Option<Slot<Photo>>,
    /// (n), windows of the stored images. `None`: whole images, resized.
    pub crops: Option<Slot<Crop>>,
}

impl Op for ViewRender {
    type Spec = ViewSpec;
    const NAME: &'static str = "view_render";

    fn check(&self, spec: &ViewSpec) -> Result<()> {
        let bytes = spec.sh * spec.sw * 3;
        want(Self::NAME, "x", self.x, spec.x_len())?;
        if let Some(KeptViews { pictures, places }) = self.kept {
            let (row, four) = (spec.h * spec.w * 3, spec.w.next_multiple_of(4));
            if spec.w != four {
                let what = "a row of a kept view";
                return Err(Error::Shape { op: Self::NAME, what, got: spec.w, want: four });
            }
            want(Self::NAME, "pictures", pictures, (pictures.len / row).max(1) * row)?;
            want(Self::NAME, "places", places, spec.n)?;
        }
        want(Self::NAME, "images", self.images, (self.images.len / bytes).max(1) * bytes)?;
        want(Self::NAME, "index", self.index, spec.n)?;
        want_if(Self::NAME, "photo", self.photo, spec.n)?;
        want_if(Self::NAME, "crops", self.crops, spec.n)
    }

    fn work(&self, spec: &ViewSpec) -> Work {
        let kept = if self.kept.is_some() { spec.n * spec.h * spec.w * 3 } else { 0 };
        Work::moved(spec.n * spec.sh * spec.sw * 3 + bytes![self.x] + kept)
    }
}

impl Passed<'_, ViewRender> {
    /// Whether images are only normalised: neither colours nor sizes change.
    pub fn is_whole(&self) -> bool {
        let spec = self.spec();
        self.photo.is_none() && self.crops.is_none() && (spec.sh, spec.sw) == (spec.h, spec.w)
    }
}

/// Arguments of [`view_sobel`].
#[derive(Clone, Copy, Debug)]
pub struct ViewSobel {
    /// (n, h, w, 8), views, whose channels 3 and 4 are overwritten.
    pub x: Slot<Act>,
}

impl Op for ViewSobel {
    type Spec = ViewSpec;
    const NAME: &'static str = "view_sobel";

    fn check(&self, spec: &ViewSpec) -> Result<()> {
        want(Self::NAME, "x", self.x, spec.x_len())?;
        if spec.channels == 8 {
            return Ok(());
        }
        Err(Error::Shape { op: Self::NAME, what: "a pixel", got: spec.channels, want: 8 })
    }

    /// Of eight channels, three are read and two are written.
    fn work(&self, _: &ViewSpec) -> Work {
        Work::moved(bytes![self.x] * 5 / 8)
    }
}

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait ViewOps {
    /// Prepares the ops for this spec: asks for scratch, and fails on sizes that the engine cannot
    /// run. Returns the engine's own number for the plan.
    fn plan_view(&mut self, spec: ViewSpec) -> Result<usize>;
    fn view_render(&mut self, a: Passed<ViewRender>) -> Result<()>;
    fn view_sobel(&mut self, a: Passed<ViewSobel>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_view(dev: &mut dyn Engine, spec: ViewSpec) -> Result<Plan<ViewSpec>> {
    spec.check()?;
    Ok(Plan { spec, number: dev.plan_view(spec)? })
}

/// `x[i] = normalise(geometry(photometric(images[index[i]])))`. First the change of colours, if
/// given, at the stored size. Then the crop, if given; else the whole image is resized with
/// antialias (a triangle filter as wide as the scale, like Pillow's BILINEAR), which is the
/// identity if the sizes agree. Last (x − [`MEAN`])/[`STD`].
///
/// NOTE: engines with activations of 16 bits, which hold no more than 8 bits of a colour, round the
/// colours to 8 bits before the last step. So a view that was kept and is read again (as a whole
/// image at its own size) gives the bits of x that were there the first time, and numbers do not
/// depend on whether there was memory to keep it.
pub fn view_render(dev: &mut dyn Engine, plan: &Plan<ViewSpec>, a: ViewRender) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.view_render(a))
}

/// Channels 3 and 4 of x = the picture's Sobel gradients, which IIC's network reads beside the
/// colours: [[1,0,−1],[2,0,−2],[1,0,−1]] and [[1,2,1],[0,0,0],[−1,−2,−1]], each cross-correlated
/// with the grey picture g = 0.299 R + 0.587 G + 0.114 B in 0..1 (normalisation undone), with zeros
/// around it. Refused if the plan has 4 channels.
pub fn view_sobel(dev: &mut dyn Engine, plan: &Plan<ViewSpec>, a: ViewSobel) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.view_sobel(a))
}
