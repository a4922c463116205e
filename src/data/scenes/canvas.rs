//! A picture being painted: colours and class ids, shapes as signed distances, value noise.

use crate::base::rng::Rng;

/// An RGB colour in 0..=1, as displayed (no linear light here).
pub type Color = [f32; 3];
pub type Point = [f32; 2];

pub fn mix(a: Color, b: Color, t: f32) -> Color {
    let t = t.clamp(0.0, 1.0);
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * t)
}

pub fn scale(a: Color, s: f32) -> Color {
    a.map(|v| v * s)
}

/// Draws one of `choices`, each channel moved by up to `spread`.
pub fn near(rng: &mut Rng, choices: &[Color], spread: f32) -> Color {
    let base = choices[rng.below(choices.len())];
    base.map(|v| (v + rng.uniform(-spread, spread)).clamp(0.02, 1.0))
}

/// A smooth step: 0 below `lo`, 1 above `hi`.
pub fn smooth(lo: f32, hi: f32, v: f32) -> f32 {
    let t = ((v - lo) / (hi - lo)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// The answer to `paint` for a pixel outside of the region, whose colour nobody needs.
pub const OUTSIDE: (f32, Color) = (f32::MAX, [0.0; 3]);

pub struct Canvas {
    pub width: usize,
    pub height: usize,
    /// The colour of each pixel (H, W).
    pub colors: Vec<Color>,
    /// The COCO-Stuff fine id of each pixel (H, W).
    pub ids: Vec<u8>,
}

impl Canvas {
    pub fn new(width: usize, height: usize, id: u8) -> Self {
        Canvas {
            width,
            height,
            colors: vec![[0.0; 3]; width * height],
            ids: vec![id; width * height],
        }
    }

    /// Paints one region of class `id` (None keeps the class: shadows). `shade` gives at the centre
    /// of a pixel the signed distance to the region's edge in pixels, negative inside, and its
    /// colour; the edge is blended over one pixel. Nothing outside `bounds` (x from, y from, x to,
    /// y to) is looked at.
    pub fn paint(
        &mut self,
        id: Option<u8>,
        bounds: [f32; 4],
        shade: impl Fn(f32, f32) -> (f32, Color),
    ) {
        self.glaze(id, bounds, 1.0, shade);
    }

    /// Paints as `paint` does, with an opacity.
    pub fn glaze(
        &mut self,
        id: Option<u8>,
        bounds: [f32; 4],
        opacity: f32,
        shade: impl Fn(f32, f32) -> (f32, Color),
    ) {
        self.glaze_by(id, bounds, opacity, &shade);
    }

    /// As [`Canvas::glaze`], compiled once.
    fn glaze_by(
        &mut self,
        id: Option<u8>,
        bounds: [f32; 4],
        opacity: f32,
        shade: &dyn Fn(f32, f32) -> (f32, Color),
    ) {
        let clip = |v: f32, side: usize| v.clamp(0.0, side as f32) as usize;
        let [x0, y0] = [clip(bounds[0].floor(), self.width), clip(bounds[1].floor(), self.height)];
        let [x1, y1] = [clip(bounds[2].ceil(), self.width), clip(bounds[3].ceil(), self.height)];
        for y in y0..y1 {
            for x in x0..x1 {
                let (distance, color) = shade(x as f32 + 0.5, y as f32 + 0.5);
                if distance < 0.5 {
                    let at = y * self.width + x;
                    self.colors[at] =
                        mix(self.colors[at], color, (0.5 - distance).min(1.0) * opacity);
                    if let (true, Some(id)) = (distance < 0.0, id) {
                        self.ids[at] = id;
                    }
                }
            }
        }
    }

    /// The class at a point; None outside the picture.
    pub fn id(&self, x: f32, y: f32) -> Option<u8> {
        let inside =
            x >= 0.0 && y >= 0.0 && (x as usize) < self.width && (y as usize) < self.height;
        inside.then(|| self.ids[y as usize * self.width + x as usize])
    }
}

/// The signed distance to an ellipse round the origin: exact on its edge, nearly so close to it.
pub fn ellipse(p: Point, rx: f32, ry: f32) -> f32 {
    ((p[0] / rx).hypot(p[1] / ry) - 1.0) * rx.min(ry)
}

/// The signed distance to a box round the origin, of half sides `hw` and `hh` and corners of radius
/// `r`.
pub fn round_box(p: Point, hw: f32, hh: f32, r: f32) -> f32 {
    let (x, y) = (p[0].abs() - hw + r, p[1].abs() - hh + r);
    x.max(0.0).hypot(y.max(0.0)) + x.max(y).min(0.0) - r
}

/// The signed distance to the points within `r` of the line from `a` to `b`.
pub fn capsule(p: Point, a: Point, b: Point, r: f32) -> f32 {
    let (d, q) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let t = ((q[0] * d[0] + q[1] * d[1]) / (d[0] * d[0] + d[1] * d[1]).max(1e-6)).clamp(0.0, 1.0);
    (q[0] - t * d[0]).hypot(q[1] - t * d[1]) - r
}

/// The signed distance to a convex polygon, corners clockwise on the screen (y grows downwards).
pub fn convex(p: Point, corners: &[Point]) -> f32 {
    let edge = |i: usize| {
        let (a, b) = (corners[i], corners[(i + 1) % corners.len()]);
        let d = [b[0] - a[0], b[1] - a[1]];
        (d[1] * (p[0] - a[0]) - d[0] * (p[1] - a[1])) / d[0].hypot(d[1]).max(1e-6)
    };
    (0..corners.len()).map(edge).fold(f32::MIN, f32::max)
}

/// Value noise: random values on a grid of whole numbers, smooth between.
pub struct Noise {
    order: Vec<u32>,
    value: Vec<f32>,
}

impl Noise {
    pub fn new(rng: &mut Rng) -> Self {
        Noise { order: rng.permutation(256), value: (0..256).map(|_| rng.unit()).collect() }
    }

    /// The noise at a point, in 0..=1; features are about one unit wide.
    pub fn at(&self, x: f32, y: f32) -> f32 {
        let (fx, fy) = (x.floor(), y.floor());
        let (u, v) = (x - fx, y - fy);
        let (u, v) = (u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v));
        let (ix, iy) = (fx as i64 as usize, fy as i64 as usize);
        let grid = |dx: usize, dy: usize| {
            let row = self.order[iy.wrapping_add(dy) & 255] as usize;
            self.value[self.order[row.wrapping_add(ix).wrapping_add(dx) & 255] as usize]
        };
        let top = grid(0, 0) + (grid(1, 0) - grid(0, 0)) * u;
        let bottom = grid(0, 1) + (grid(1, 1) - grid(0, 1)) * u;
        top + (bottom - top) * v
    }

    /// Fractal noise: `octaves` of `at`, each twice as fine and half as strong. In 0..=1, mostly
    /// near ½.
    pub fn fractal(&self, x: f32, y: f32, octaves: usize) -> f32 {
        let (mut sum, mut weight, mut total, mut f) = (0.0, 1.0, 0.0, 1.0);
        for octave in 0..octaves {
            let shift = 17.3 * octave as f32;
            sum += weight * self.at(x * f + shift, y * f - shift);
            total += weight;
            weight *= 0.5;
            f *= 2.0;
        }
        sum / total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Stream;

    #[test]
    fn distances_are_negative_inside_zero_on_the_edge_and_in_pixels() {
        let close =
            |got: f32, want: f32| assert!((got - want).abs() <= 1e-5, "{got} is not {want}");
        close(ellipse([0.0, 3.0], 7.0, 3.0), 0.0);
        close(ellipse([0.0, 0.0], 7.0, 3.0), -3.0);
        close(round_box([9.0, 0.5], 5.0, 2.0, 1.0), 4.0);
        close(round_box([0.0, 0.0], 5.0, 2.0, 0.0), -2.0);
        close(capsule([3.0, 4.0], [0.0, 0.0], [10.0, 0.0], 1.5), 2.5);
        let triangle = [[0.0, 0.0], [6.0, 0.0], [6.0, 8.0]];
        close(convex([5.0, 2.0], &triangle), -1.0);
        close(convex([5.0, -2.0], &triangle), 2.0);
    }

    #[test]
    fn paint_blends_its_edge_and_labels_its_inside() {
        let mut canvas = Canvas::new(4, 3, 7);
        canvas.paint(Some(9), [0.0, 0.0, 4.0, 2.0], |x, _| (x - 2.25, [1.0; 3]));
        let row = |y: usize| {
            (&canvas.ids[y * 4..][..4], [0, 1, 2, 3].map(|x| canvas.colors[y * 4 + x][0]))
        };
        assert_eq!(row(1), (&[9, 9, 7, 7][..], [1.0, 1.0, 0.25, 0.0]));
        assert_eq!(row(2), (&[7; 4][..], [0.0; 4]));
        assert_eq!(
            (canvas.id(1.5, 1.5), canvas.id(3.5, 1.5), canvas.id(4.0, 1.0)),
            (Some(9), Some(7), None)
        );
    }

    #[test]
    fn noise_is_continuous_and_fills_its_range() {
        let noise = Noise::new(&mut Rng::new(1, Stream::Scenes, 0, 0));
        let at = |i: i32| noise.at(i as f32 * 0.01 - 20.0, 3.3);
        // Smoothstep's slope is at most 3/2 of the step between two grid values.
        assert!((0..4000).all(|i| (at(i + 1) - at(i)).abs() <= 0.0151));
        let all: Vec<f32> = (0..4000).map(at).collect();
        let (lo, hi) = all.iter().fold((1f32, 0f32), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        assert!((0.0..=0.2).contains(&lo) && (0.8..=1.0).contains(&hi), "{lo} {hi}");
    }
}
