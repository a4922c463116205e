//! Views: what an image costs follows from its draws.

use crate::base::Result;
use crate::device::ops::view::ViewOps;
use crate::device::ops::{Crop, Passed, Photo, ViewRender, ViewSobel, ViewSpec};
use crate::device::paper::Paper;
use crate::device::paper::launch::{Launch, Warps};
use crate::device::paper::norm::warps;

/// The draws of one image, as its kernel needs them.
struct Draws {
    /// Sides of the window that is resampled, in pixels of the stored image.
    height: f64,
    width: f64,
    /// Radius of the blur in pixels.
    radius: f64,
    /// Whether a step of colours is on, and whether the mean grey is needed.
    coloured: bool,
    contrast: bool,
}

impl Draws {
    fn of(spec: &ViewSpec, photo: Option<&Photo>, crop: Option<&Crop>) -> Self {
        let whole = (spec.sh as f64, spec.sw as f64);
        let (height, width) =
            crop.map_or(whole, |crop| (f64::from(crop.side), f64::from(crop.side)));
        let photo = photo.copied().unwrap_or(Photo::NONE);
        Draws {
            height,
            width,
            radius: f64::from((3.0 * photo.sigma).ceil()),
            coloured: Photo { sigma: 0.0, ..photo } != Photo::NONE,
            contrast: photo.contrast != 1.0,
        }
    }
}

impl ViewOps for Paper {
    fn plan_view(&mut self, _: ViewSpec) -> Result<usize> {
        Ok(0)
    }

    fn view_render(&mut self, a: Passed<ViewRender>) -> Result<()> {
        let spec = *a.spec();
        let photos = a.photo.map_or(Vec::new(), |photo| self.staged(photo));
        let crops = a.crops.map_or(Vec::new(), |crops| self.staged(crops));
        let draws = (0..spec.n).map(|i| Draws::of(&spec, photos.get(i), crops.get(i)));
        let (mut grey, mut render) = (Warps::default(), Warps::default());
        let (mut greys, mut read) = (0.0, 0.0);
        let stored = (spec.sh * spec.sw) as f64;
        for draw in draws {
            if draw.contrast {
                greys += 3.0 * stored;
                grey = grey + GREY * (stored / 128.0);
            }
            read += 3.0 * draw.height * draw.width;
            render = render + rendered(&spec, &draw);
        }
        if a.photo.is_some() {
            let launch = Launch::streams("view_grey", grey, greys);
            self.launch(Launch { l2: 0.0, factor: 1.2, latency: 0.0, ..launch })?;
        }
        let bytes = read + a.x.bytes() as f64;
        let launch = Launch::streams("view_render", render, bytes);
        self.launch(Launch { l2: 1.3 * bytes, factor: 1.25, latency: 0.0, ..launch })
    }

    fn view_sobel(&mut self, a: Passed<ViewSobel>) -> Result<()> {
        self.spend("view_sobel", a.x.bytes() as f64 * 5.0 / 8.0 / self.gpu.copy, "memory")
    }
}

/// The mean grey, 128 pixels a warp.
const GREY: Warps = warps(250.0, 90.0, 105.0, 3.0);

/// The instructions of one view: a block has 32×32 pixels of it, and colours and sums the rows of
/// the stored image below them.
fn rendered(spec: &ViewSpec, draw: &Draws) -> Warps {
    let blocks = (spec.h.div_ceil(32) * spec.w.div_ceil(32)) as f64;
    let [vertical, horizontal] =
        [draw.height / spec.h as f64, draw.width / spec.w as f64].map(|scale| {
            // Samples of a pixel, and rows (or columns) below a block.
            let taps = 2.0 * scale.max(1.0) + 2.0 * draw.radius;
            (taps, 31.0 * scale + taps)
        });
    let ((taps_v, rows), (taps_h, columns)) = (vertical, horizontal);
    let pixels = rows * (columns / 32.0).ceil();
    let colour = if draw.coloured { COLOUR } else { LOAD };
    let warps = SET_UP + colour * pixels + TAP * (rows * taps_h + 32.0 * taps_v);
    warps * blocks
}

/// A block's tables; a pixel's load, and with its colours, for 32 of them; a tap of 32 pixels.
const SET_UP: Warps = warps(4000.0, 1440.0, 960.0, 400.0);
const LOAD: Warps = warps(90.0, 40.0, 20.0, 6.0);
const COLOUR: Warps = warps(200.0, 80.0, 55.0, 6.0);
const TAP: Warps = warps(38.0, 14.0, 9.0, 4.0);
