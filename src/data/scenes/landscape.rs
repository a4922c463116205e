//! One scene: light, sky, mountains, land and water in perspective, a road, and things standing on
//! it.
//!
//! Each class keeps its texture and its place but takes its colours from many, under light from
//! noon to night: neither colour nor place alone tells a class.

use super::canvas::{Canvas, Noise, OUTSIDE, ellipse, mix, near, scale, smooth};
use super::ground::{GRASS, Ground, Light, MOUNTAIN, ROAD, SEA, SKY};
use super::things;
use crate::base::rng::{Rng, Stream};

/// The sizes (width, height) that pictures come in, so that crops and both orientations occur.
const SIZES: [(usize, usize); 6] =
    [(320, 240), (320, 240), (240, 320), (320, 214), (256, 256), (288, 216)];

/// Draws scene `index` of `split` (0 train, 1 val).
pub fn draw(seed: u64, split: u32, index: u32) -> Canvas {
    let rng = &mut Rng::new(seed, Stream::Scenes, split, index);
    let (width, height) = SIZES[rng.below(SIZES.len())];
    let (w, h) = (width as f32, height as f32);
    let noise = Noise::new(rng);
    let light = Light::draw(rng);
    let horizon = h * rng.uniform(0.25, 0.52);
    let middle = w * rng.uniform(0.25, 0.75);
    let ground = Ground { horizon, depth: h - horizon, middle, eye: rng.uniform(1.7, 3.2) };
    let mut canvas = Canvas::new(width, height, SKY);

    sky(&mut canvas, rng, &noise, &light, horizon);
    for layer in (0..rng.below(4)).rev() {
        mountains(&mut canvas, rng, &noise, &light, &ground, layer as f32);
    }
    let layout = rng.below(4);
    meadow(&mut canvas, rng, &noise, &light, &ground);
    if layout == 0 || layout == 1 {
        water(&mut canvas, rng, &noise, &light, &ground, layout == 0);
    }
    if layout >= 2 || rng.bernoulli(0.3) {
        road(&mut canvas, rng, &noise, &light, &ground, layout == 3);
    }
    things::place(&mut canvas, rng, &noise, &light, &ground);
    expose(&mut canvas, rng);
    canvas
}

fn sky(canvas: &mut Canvas, rng: &mut Rng, noise: &Noise, light: &Light, horizon: f32) {
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    let cover = rng.uniform(0.35, 0.75);
    let size = rng.uniform(2.0, 4.5);
    let sun = [w * rng.unit(), horizon * rng.uniform(0.1, 1.0)];
    let glow = if light.night { 0.15 } else { rng.uniform(0.1, 0.45) };
    let cloud = mix(scale(light.horizon, 1.08), [1.0; 3], if light.night { 0.05 } else { 0.45 });
    canvas.paint(Some(SKY), [0.0, 0.0, w, h], |x, y| {
        let up = (1.0 - y / horizon.max(1.0)).clamp(0.0, 1.0);
        let base = mix(light.horizon, light.zenith, up.powf(0.8));
        let near_sun = (-((x - sun[0]).hypot(y - sun[1]) / (0.3 * w))).exp();
        let base = mix(base, [1.0, 0.95, 0.82], glow * near_sun);
        // Clouds lie flatter towards the horizon.
        let (u, v) = (x / w * size, y / h * size * (1.6 + 1.6 * (1.0 - up)));
        let body = noise.fractal(u + 40.0, v, 4);
        let lit = noise.fractal(u + 40.0, v - 0.15, 3) - body;
        let base = mix(
            base,
            scale(cloud, 1.0 - 0.8 * lit.max(0.0)),
            smooth(cover, cover + 0.18, body) * 0.9,
        );
        let star = light.night && noise.at(x * 1.3, y * 1.3) > 0.985;
        (-1.0, if star { [0.85; 3] } else { base })
    });
}

fn mountains(
    canvas: &mut Canvas,
    rng: &mut Rng,
    noise: &Noise,
    light: &Light,
    ground: &Ground,
    layer: f32,
) {
    let w = canvas.width as f32;
    let rock = near(
        rng,
        &[[0.42, 0.40, 0.40], [0.45, 0.36, 0.28], [0.30, 0.36, 0.30], [0.36, 0.38, 0.48]],
        0.06,
    );
    let tall = ground.horizon * rng.uniform(0.25, 0.45) * (1.0 + 0.5 * layer);
    let (width, shift) = (rng.uniform(0.22, 0.45) * w, rng.uniform(0.0, 200.0));
    let snow = if rng.bernoulli(0.35) { ground.horizon - tall * 0.75 } else { -1.0 };
    let ridge = |x: f32| {
        let n = noise.fractal(x / width + shift, layer * 9.1, 5);
        ground.horizon - tall * (0.15 + 1.3 * (1.0 - 2.0 * (n - 0.5).abs()) * n)
    };
    let ridge: Vec<f32> = (0..canvas.width).map(|x| ridge(x as f32 + 0.5)).collect();
    let top = ridge.iter().copied().fold(ground.horizon, f32::min);
    canvas.paint(Some(MOUNTAIN), [0.0, top - 1.0, w, ground.horizon + 2.0], |x, y| {
        let edge = ridge[x as usize] - y;
        if edge > 0.5 {
            return OUTSIDE;
        }
        let (u, v) = (x / width * 3.0 + shift, y / width * 3.0);
        // Folds of the rock: creases of fractal noise, lit from one side.
        let crease = |u: f32| 1.0 - (2.0 * noise.fractal(u, v + 0.35 * u, 4) - 1.0).abs();
        let side = (crease(u + 0.12) - crease(u - 0.12)) * 1.6;
        let rough = 0.75 + 0.4 * crease(u) + side;
        let white = smooth(4.0, -4.0, y - snow + 14.0 * (crease(u) - 0.7));
        let color = mix(scale(rock, rough), scale([0.92, 0.94, 0.98], 0.8 + 0.2 * rough), white);
        (edge, light.on(color, 0.35 + 0.25 * layer))
    });
}

fn meadow(canvas: &mut Canvas, rng: &mut Rng, noise: &Noise, light: &Light, ground: &Ground) {
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    let greens = [
        [0.26, 0.46, 0.14],
        [0.40, 0.50, 0.18],
        [0.62, 0.54, 0.24],
        [0.44, 0.36, 0.18],
        [0.20, 0.38, 0.24],
    ];
    let (grass, other) = (near(rng, &greens, 0.05), near(rng, &greens, 0.05));
    let flower = near(rng, &[[0.95, 0.85, 0.25], [0.9, 0.9, 0.95], [0.8, 0.25, 0.45]], 0.05);
    let flowers = if rng.bernoulli(0.4) { rng.uniform(0.88, 0.94) } else { 2.0 };
    let (blades, rolling) = (rng.uniform(22.0, 34.0), rng.uniform(0.0, 0.05) * h);
    canvas.paint(Some(GRASS), [0.0, ground.horizon - rolling - 2.0, w, h], |x, y| {
        let top = ground.horizon - rolling * noise.fractal(x / w * 3.0, 77.0, 3);
        let (u, v) = ground.uv(x, y);
        let patch = smooth(0.35, 0.65, noise.fractal(u * 1.5, v * 3.0, 3));
        let blade = noise.at(u * blades, v * blades * 0.8)
            + 0.5 * noise.at(u * blades * 2.3, v * blades * 1.1);
        // Far blades are finer than pixels: their contrast goes before they do.
        let far = ground.far(y);
        let color =
            scale(mix(grass, other, patch), 1.0 + 0.68 * (blade - 0.75) * (1.0 - 0.8 * far * far));
        let dot = noise.at(u * 17.0 + 90.0, v * 17.0) > flowers + 0.1 * far;
        (top - y, light.on(if dot { flower } else { color }, far))
    });
}

/// Paints a sea from the horizon to a shore (`wide`), or a lake in the meadow.
fn water(
    canvas: &mut Canvas,
    rng: &mut Rng,
    noise: &Noise,
    light: &Light,
    ground: &Ground,
    wide: bool,
) {
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    let deep = near(
        rng,
        &[[0.06, 0.24, 0.38], [0.08, 0.34, 0.34], [0.22, 0.28, 0.26], [0.12, 0.18, 0.34]],
        0.04,
    );
    let (waves, foam) = (rng.uniform(20.0, 34.0), rng.uniform(0.80, 0.95));
    let shore = ground.horizon + ground.depth * rng.uniform(0.35, 0.95);
    let lean = rng.uniform(-0.25, 0.25);
    let lake = (
        [w * rng.uniform(0.2, 0.8), ground.horizon + ground.depth * rng.uniform(0.3, 0.6)],
        w * rng.uniform(0.35, 0.6),
    );
    let flat = ground.depth * rng.uniform(0.18, 0.32);
    canvas.paint(Some(SEA), [0.0, ground.horizon, w, h], |x, y| {
        let wobble = noise.fractal(x / w * 4.0, y / h * 4.0 + 31.0, 3) - 0.5;
        let edge = if wide {
            (y - shore - lean * (x - w * 0.5) + wobble * 0.2 * ground.depth).max(ground.horizon - y)
        } else {
            ellipse([x - lake.0[0], y - lake.0[1] + wobble * 20.0], lake.1, flat)
        };
        if edge > 0.5 {
            return OUTSIDE;
        }
        let (u, v) = ground.uv(x, y);
        let wave =
            0.6 * noise.at(u * 5.0, v * waves) + 0.4 * noise.at(u * 13.0 + 5.0, v * waves * 2.3);
        let mirror = 0.25 + 0.55 * ground.far(y) + 0.7 * (wave - 0.5);
        let color = mix(light.on(deep, 0.0), mix(light.horizon, light.zenith, 0.4), mirror);
        let crest = smooth(foam, foam + 0.06, wave)
            + 0.8 * smooth(-4.0, -1.0, edge) * noise.at(x * 0.3, y * 0.3);
        (edge, mix(color, light.on([0.95; 3], 0.0), 0.8 * crest))
    });
}

/// Paints a road to the horizon, or a street across the picture.
fn road(
    canvas: &mut Canvas,
    rng: &mut Rng,
    noise: &Noise,
    light: &Light,
    ground: &Ground,
    across: bool,
) {
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    let paved = across || rng.bernoulli(0.6);
    let stone = [[0.36, 0.36, 0.38], [0.52, 0.50, 0.48], [0.24, 0.24, 0.27]];
    let dirt = [[0.56, 0.44, 0.30], [0.66, 0.58, 0.44], [0.44, 0.30, 0.22]];
    let base = near(rng, if paved { &stone } else { &dirt }, 0.04);
    let paint = near(rng, &[[0.92, 0.92, 0.90], [0.92, 0.78, 0.25]], 0.03);
    let half = rng.uniform(2.2, 3.8) / ground.eye;
    let (lean, bend) = (rng.uniform(-1.0, 1.0), rng.uniform(-0.35, 0.35));
    let middle = ground.horizon + ground.depth * rng.uniform(0.45, 0.75);
    let broad = ground.depth * rng.uniform(0.16, 0.26);
    canvas.paint(Some(ROAD), [0.0, ground.horizon + 2.0, w, h], |x, y| {
        let (u, v) = ground.uv(x, y);
        let t = (y - ground.horizon).max(0.7);
        let ahead = ground.depth / t;
        // `side`: −1..1 from edge to edge; `along`: metres or so, for the dashes.
        let (side, along, width) = if across {
            ((y - middle) / broad, x / broad, broad)
        } else {
            ((u - lean + bend * (ahead * 0.6).sin()) / half, ahead * 3.0, half * t)
        };
        let rough = if paved { 0.0 } else { 0.25 * (noise.fractal(u * 6.0, v * 6.0, 3) - 0.5) };
        let edge = (side.abs() - 1.0 + rough) * width;
        if edge > 0.5 {
            return OUTSIDE;
        }
        let grain = 0.84
            + 0.18 * noise.at(u * 45.0, v * 45.0)
            + 0.22 * (noise.fractal(u * 4.0, v * 4.0, 3) - 0.5);
        let rut = if paved { 0.0 } else { 0.18 * (-((side.abs() - 0.5) / 0.15).powi(2)).exp() };
        let mut color = scale(base, grain - rut);
        let dash = side.abs() < 0.035 && along.rem_euclid(1.0) < 0.55;
        if paved && (dash || (side.abs() - 0.9).abs() < 0.025) {
            color = scale(paint, grain);
        }
        (edge, light.on(color, ground.far(y)))
    });
}

/// Changes the picture as a camera does: exposure, contrast, a darker rim, grain.
fn expose(canvas: &mut Canvas, rng: &mut Rng) {
    let (gain, gamma, rim, grain) = (
        rng.uniform(0.85, 1.15),
        rng.uniform(0.85, 1.2),
        rng.uniform(0.0, 0.25),
        rng.uniform(0.005, 0.03),
    );
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    for (i, color) in canvas.colors.iter_mut().enumerate() {
        let (x, y) = ((i % canvas.width) as f32 / w - 0.5, (i / canvas.width) as f32 / h - 0.5);
        let gain = gain * (1.0 - 2.0 * rim * (x * x + y * y));
        *color = color
            .map(|v| (v * gain).max(0.0).powf(gamma) + grain * (rng.unit() + rng.unit() - 1.0));
    }
}
