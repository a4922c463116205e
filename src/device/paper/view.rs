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
    /// Instructions of the steps of colours that are on, for 32 pixels of the stored image.
    colours: f64,
    /// Whether the mean grey is needed.
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
            colours: [
                (photo.brightness != 1.0, 7.0),
                (photo.contrast != 1.0, 7.0),
                (photo.saturation != 1.0, 10.0),
                (photo.hue != 0.0, 30.0),
                (photo.grey != 0, 3.0),
            ]
            .iter()
            .filter_map(|(on, cost)| on.then_some(*cost))
            .sum(),
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
        if a.is_whole() && a.kept.is_none() {
            let pixels = (spec.n * spec.h * spec.w) as f64;
            let bytes = 3.0 * pixels + a.x.bytes() as f64;
            return self.launch(Launch::streams("view_load", LOAD * (pixels / 128.0), bytes));
        }
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
        let mut bytes = read + a.x.bytes() as f64;
        if a.kept.is_some() {
            let pixels = (spec.n * spec.h * spec.w) as f64;
            bytes += 3.0 * pixels;
            render = render + KEEP * (pixels / 32.0);
        }
        let launch = Launch::streams("view_render", render, bytes);
        self.launch(Launch { l2: 1.3 * bytes, factor: 1.25, latency: 0.0, ..launch })
    }

    fn view_sobel(&mut self, a: Passed<ViewSobel>) -> Result<()> {
        self.spend("view_sobel", a.x.bytes() as f64 * 5.0 / 8.0 / self.gpu.copy, "memory")
    }
}

/// Images as they are, 128 pixels a warp.
const LOAD: Warps = warps(215.0, 80.0, 92.0, 17.0);
/// What a row of 32 pixels takes to be kept.
const KEEP: Warps = warps(19.0, 11.0, 4.0, 3.0);
/// The mean grey, 128 pixels a warp.
const GREY: Warps = warps(160.0, 55.0, 80.0, 3.0);

/// The instructions of one view. A block has up to 108 columns and 80 rows of it; a thread walks
/// down a column of the stored image below them.
fn rendered(spec: &ViewSpec, draw: &Draws) -> Warps {
    let [high, wide] = [spec.h.div_ceil(80), spec.w.div_ceil(108)].map(|n| n as f64);
    // Samples of a pixel, and pixels of the stored image for one of the view.
    let [(down, scale), (along, step)] = [draw.height / spec.h as f64, draw.width / spec.w as f64]
        .map(|scale| (2.0 * scale.max(1.0) + 2.0 * draw.radius, scale));
    let rows = spec.h as f64 * scale + high * down;
    let warps_of_row = ((spec.w as f64 / wide * step + along) / 32.0).ceil() * wide;
    // A row is added to three, six or nine sums.
    let sums = match (down + 2.0) / scale {
        ..=3.0 => 13.0,
        ..=6.0 => 23.0,
        _ => 33.0,
    };
    let source = rows * warps_of_row * (21.0 + draw.colours + sums + 15.0);
    let outputs = (spec.h * spec.w) as f64 / 32.0 * (50.0 + 7.0 * along);
    let issue = source + outputs + 22e3 * high * wide;
    warps(issue, 0.23 * issue, 0.45 * issue, 0.16 * issue)
}
