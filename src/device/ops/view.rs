//! A view of an image as the network reads it: photometric change, geometry, normalisation, u8 →
//! activations.

use std::fmt;

use bytemuck::{Pod, Zeroable};

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, want, want_if};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// ImageNet's mean and standard deviation of RGB in 0..1 (torchvision).
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// images (m, sh, sw, 3) u8 → x (n, h, w, channels), all channels but the first three zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewSpec {
    pub n: usize,
    pub sh: usize,
    pub sw: usize,
    pub h: usize,
    pub w: usize,
    /// As the network reads them: 4, or 8 with room for [`view_sobel`].
    pub channels: usize,
}

impl ViewSpec {
    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.channels
    }

    /// Refuses what no engine plans.
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

/// Photometric draws of one image. Colours are in 0..1 and clamped to it after each step; grey =
/// 0.299 R + 0.587 G + 0.114 B. The four jitter steps run in `order`, then grey, then blur.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Photo {
    /// x·b. 1 changes nothing.
    pub brightness: f32,
    /// m + (x − m)·c, m the mean grey of the whole image at this point.
    pub contrast: f32,
    /// g + (x − g)·s, g the grey of the pixel.
    pub saturation: f32,
    /// Turns of the HSV colour circle, in −0.5..0.5. 0 changes nothing (and skips the conversion).
    pub hue: f32,
    /// σ of the Gaussian blur in pixels of the stored image; 0 is none. Taps: radius ⌈3σ⌉ (at most
    /// the image's longer side), normalised, edges replicated.
    pub sigma: f32,
    /// 1: replace by grey.
    pub grey: u32,
    /// A permutation as four 2-bit fields, the first step lowest: 0 brightness, 1 contrast, 2
    /// saturation, 3 hue.
    pub order: u32,
}

impl Photo {
    /// brightness, contrast, saturation, hue.
    pub const FIXED_ORDER: u32 = 0b11_10_01_00;
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

/// A square window of a map, then a mirror: rows `top..top + side`, columns `left..left + side`,
/// resampled bilinearly (align_corners = false, no antialias, torch's `interpolate`) to the output
/// side, then flipped horizontally. The window lies inside of the map and is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Crop {
    pub top: u32,
    pub left: u32,
    pub side: u32,
    pub flip: u32,
}

impl Crop {
    /// The whole of a square map: resampling it is the identity.
    pub fn whole(side: usize) -> Self {
        Crop { top: 0, left: 0, side: side as u32, flip: 0 }
    }
}

/// Arguments of [`view_render`].
#[derive(Clone, Copy, Debug)]
pub struct ViewRender {
    /// = (n, h, w, channels)
    pub x: Slot<Act>,
    /// (m, sh, sw, 3)
    pub images: Slot<u8>,
    /// (n), below m.
    pub index: Slot<u32>,
    /// (n); None: colours stay.
    pub photo: Option<Slot<Photo>>,
    /// (n); None: the whole image, resized.
    pub crops: Option<Slot<Crop>>,
}

impl Op for ViewRender {
    type Spec = ViewSpec;
    const NAME: &'static str = "view_render";

    fn check(&self, spec: &ViewSpec) -> Result<()> {
        let bytes = spec.sh * spec.sw * 3;
        want(Self::NAME, "x", self.x, spec.x_len())?;
        want(Self::NAME, "images", self.images, (self.images.len / bytes).max(1) * bytes)?;
        want(Self::NAME, "index", self.index, spec.n)?;
        want_if(Self::NAME, "photo", self.photo, spec.n)?;
        want_if(Self::NAME, "crops", self.crops, spec.n)
    }

    fn work(&self, spec: &ViewSpec) -> Work {
        Work::moved(spec.n * spec.sh * spec.sw * 3 + bytes![self.x])
    }
}

/// Arguments of [`view_sobel`].
#[derive(Clone, Copy, Debug)]
pub struct ViewSobel {
    /// (n, h, w, 8): channels 3 and 4 =.
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

    /// Three channels of eight are read and two written.
    fn work(&self, _: &ViewSpec) -> Work {
        Work::moved(bytes![self.x] * 5 / 8)
    }
}

/// What an engine does of the family.
pub trait View {
    /// Asks for scratch; refuses sizes that the engine cannot run. Returns its number for the plan.
    fn plan_view(&mut self, spec: ViewSpec) -> Result<usize>;
    fn view_render(&mut self, a: Passed<ViewRender>) -> Result<()>;
    fn view_sobel(&mut self, a: Passed<ViewSobel>) -> Result<()>;
}

pub fn plan_view(dev: &mut dyn Engine, spec: ViewSpec) -> Result<Plan<ViewSpec>> {
    spec.check()?;
    Ok(Plan { spec, number: dev.plan_view(spec)? })
}

/// x[i] = normalise(geometry(photometric(images[index[i]]))): `photo` at stored size, if given;
/// then the crop, if given, else the whole image resized with antialias (triangle filter as wide
/// as the scale, as Pillow's BILINEAR), the identity where sizes agree; then (x − MEAN)/STD.
pub fn view_render(dev: &mut dyn Engine, plan: &Plan<ViewSpec>, a: ViewRender) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.view_render(a))
}

/// Channels 3 and 4 of x = the Sobel gradient (IIC): dx = [[1,0,−1],[2,0,−2],[1,0,−1]], dy =
/// [[1,2,1],[0,0,0],[−1,−2,−1]], cross-correlated with the grey picture g = 0.299 R + 0.587 G +
/// 0.114 B in 0..1 (normalisation undone), zeros around it. Refused where the plan has 4 channels.
pub fn view_sobel(dev: &mut dyn Engine, plan: &Plan<ViewSpec>, a: ViewSobel) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.view_sobel(a))
}
