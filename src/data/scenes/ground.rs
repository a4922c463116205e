//! What landscape and things share: the classes of a scene, its light, and where its ground lies.

use super::canvas::{Color, mix, scale};
use crate::base::rng::Rng;

/// The COCO-Stuff fine ids of the nine classes, which fall into nine different coarse classes.
pub const SKY: u8 = 156;
pub const MOUNTAIN: u8 = 134;
pub const SEA: u8 = 154;
pub const GRASS: u8 = 123;
pub const ROAD: u8 = 148;
pub const HOUSE: u8 = 127;
pub const PERSON: u8 = 0;
pub const CAR: u8 = 2;
pub const SHEEP: u8 = 19;

/// The light of a time of day, which changes every colour.
pub struct Light {
    pub zenith: Color,
    pub horizon: Color,
    tint: Color,
    haze: f32,
    pub night: bool,
}

/// The colours of each time of day: (zenith, horizon, tint of everything lit).
const HOURS: [(Color, Color, Color); 6] = [
    ([0.22, 0.45, 0.82], [0.72, 0.84, 0.95], [1.0, 0.98, 0.94]), // noon
    ([0.30, 0.55, 0.85], [0.80, 0.88, 0.92], [1.05, 1.0, 0.9]),  // afternoon
    ([0.55, 0.58, 0.62], [0.76, 0.77, 0.78], [0.78, 0.80, 0.84]), // overcast
    ([0.30, 0.28, 0.50], [0.98, 0.60, 0.32], [0.95, 0.68, 0.50]), // dusk
    ([0.45, 0.50, 0.72], [0.98, 0.78, 0.74], [0.90, 0.78, 0.80]), // dawn
    ([0.06, 0.09, 0.22], [0.22, 0.27, 0.44], [0.56, 0.62, 0.82]), // night
];

impl Light {
    /// Draws a time of day.
    pub fn draw(rng: &mut Rng) -> Self {
        let hour = [0, 0, 1, 1, 2, 2, 3, 3, 4, 5][rng.below(10)];
        let (zenith, horizon, tint) = HOURS[hour];
        let cast = [rng.uniform(0.9, 1.1), rng.uniform(0.93, 1.07), rng.uniform(0.9, 1.1)];
        let shift = |c: Color| std::array::from_fn(|i| c[i] * cast[i]);
        Light {
            zenith: shift(zenith),
            horizon: shift(horizon),
            tint: shift(scale(tint, rng.uniform(0.85, 1.1))),
            haze: rng.uniform(0.15, 0.6),
            night: hour == 5,
        }
    }

    /// The look of a surface of colour `c` at the distance `far` (0 here, 1 at the horizon).
    pub fn on(&self, c: Color, far: f32) -> Color {
        let lit = std::array::from_fn(|i| c[i] * self.tint[i]);
        mix(lit, mix(self.horizon, self.zenith, 0.25), self.haze * far)
    }
}

/// Where the flat ground lies on the screen. `t` = rows below the horizon; a thing of height m at t
/// is t · m / eye tall.
pub struct Ground {
    pub horizon: f32,
    pub depth: f32,
    pub middle: f32,
    /// Height of the camera in metres.
    pub eye: f32,
}

impl Ground {
    /// Coordinates in which equal steps look equal at their distance: textures drawn in them
    /// recede.
    pub fn uv(&self, x: f32, y: f32) -> (f32, f32) {
        let t = (y - self.horizon).max(0.7);
        ((x - self.middle) / t, t.ln())
    }

    /// How far away row `y` is: 0 here, 1 at the horizon.
    pub fn far(&self, y: f32) -> f32 {
        1.0 - ((y - self.horizon) / self.depth).clamp(0.0, 1.0).sqrt()
    }
}
