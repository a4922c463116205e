//! Houses, cars, sheep and people, standing on the ground at their distance.

use super::canvas::{
    Canvas, Color, Noise, Point, capsule, convex, ellipse, near, round_box, scale,
};
use super::ground::{CAR, GRASS, Ground, HOUSE, Light, PERSON, ROAD, SHEEP};
use crate::base::rng::Rng;

#[derive(Clone, Copy)]
enum Thing {
    House,
    Car,
    Sheep,
    Person,
}

impl Thing {
    /// Half the width of the thing, in metres.
    fn half(self) -> f32 {
        match self {
            Thing::House => 4.5,
            Thing::Car => 2.2,
            Thing::Sheep => 1.0,
            Thing::Person => 0.6,
        }
    }
}

/// Draws what stands where and paints it from far to near.
pub fn place(canvas: &mut Canvas, rng: &mut Rng, noise: &Noise, light: &Light, ground: &Ground) {
    use Thing::*;
    let counts = [(House, 4), (Car, 3), (Sheep, 5), (Person, 4)];
    // One kind is always there, the others by chance.
    let certain = rng.below(counts.len());
    let mut things = Vec::new();
    for (kind, (thing, most)) in counts.into_iter().enumerate() {
        let count = if kind == certain || rng.bernoulli(0.45) { 1 + rng.below(most) } else { 0 };
        for _ in 0..count {
            let spot = find(canvas, rng, ground, thing, &things);
            things.extend(spot.map(|(x, y)| (thing, x, y)));
        }
    }
    things.sort_by(|a, b| a.2.total_cmp(&b.2));
    for (thing, x, y) in things {
        let metre = (y - ground.horizon) / ground.eye;
        let far = ground.far(y);
        let lit = |c: Color| light.on(c, far);
        let brush = Brush { canvas, x, y, metre, lit: &lit };
        match thing {
            House => house(brush, rng, noise, light.night),
            Car => car(brush, rng, light.night),
            Sheep => sheep(brush, rng, noise),
            Person => person(brush, rng),
        }
    }
}

/// Finds a spot (x, y) on ground that fits the thing, not too much behind or before `others`; None
/// if a few tries find none.
fn find(
    canvas: &Canvas,
    rng: &mut Rng,
    ground: &Ground,
    thing: Thing,
    others: &[(Thing, f32, f32)],
) -> Option<(f32, f32)> {
    let (near, far, on): (f32, f32, &[u8]) = match thing {
        Thing::House => (0.10, 0.42, &[GRASS]),
        Thing::Car => (0.25, 0.95, &[ROAD, ROAD, GRASS]),
        Thing::Sheep => (0.22, 0.95, &[GRASS]),
        Thing::Person => (0.28, 1.0, &[GRASS, ROAD]),
    };
    let on = on[rng.below(on.len())];
    let metre = |y: f32| (y - ground.horizon) / ground.eye;
    (0..24).find_map(|_| {
        let (x, y) = (
            canvas.width as f32 * rng.uniform(0.03, 0.97),
            ground.horizon + ground.depth * rng.uniform(near, far),
        );
        let m = metre(y);
        let stands =
            [-m, 0.0, m].iter().all(|dx| canvas.id(x + dx, y - 1.0).is_none_or(|id| id == on));
        let free = others.iter().all(|&(other, ox, oy)| {
            let room = 0.75 * (thing.half() * m + other.half() * metre(oy));
            (x - ox).abs() > room
                || (y - ground.horizon).max(oy - ground.horizon)
                    > 2.5 * (y.min(oy) - ground.horizon)
        });
        (stands && free).then_some((x, y))
    })
}

/// A brush that paints in metres round a foot point: x to the right, y *upwards*.
struct Brush<'a> {
    canvas: &'a mut Canvas,
    x: f32,
    y: f32,
    /// The pixels of a metre at this distance.
    metre: f32,
    lit: &'a dyn Fn(Color) -> Color,
}

impl Brush<'_> {
    /// Paints a region inside the box (left, bottom, right, top); `shade` gives signed distance
    /// (metres) and colour.
    fn paint(&mut self, id: u8, bounds: [f32; 4], shade: impl Fn(Point) -> (f32, Color)) {
        let (x, y, m) = (self.x, self.y, self.metre);
        let lit = self.lit;
        let pixels = [
            x + bounds[0] * m - 1.0,
            y - bounds[3] * m - 1.0,
            x + bounds[2] * m + 1.0,
            y - bounds[1] * m + 1.0,
        ];
        self.canvas.paint(Some(id), pixels, |px, py| {
            let (distance, color) = shade([(px - x) / m, (y - py) / m]);
            (distance * m, lit(color))
        });
    }

    /// Paints the shadow under a thing that reaches `half` to each side.
    fn shadow(&mut self, half: f32) {
        let (x, y, m) = (self.x, self.y, self.metre);
        let (rx, ry) = (half * m, (0.22 * half * m).max(0.8));
        self.canvas.glaze(
            None,
            [x - rx - 1.0, y - ry - 1.0, x + rx + 1.0, y + ry + 1.0],
            0.5,
            |px, py| (ellipse([px - x, py - y], rx, ry), [0.02; 3]),
        );
    }
}

fn house(mut b: Brush, rng: &mut Rng, noise: &Noise, night: bool) {
    let walls = [
        [0.86, 0.80, 0.70],
        [0.62, 0.30, 0.22],
        [0.48, 0.36, 0.26],
        [0.50, 0.62, 0.70],
        [0.56, 0.62, 0.44],
        [0.80, 0.66, 0.34],
    ];
    let wall = near(rng, &walls, 0.06);
    let roof = near(
        rng,
        &[[0.48, 0.20, 0.14], [0.28, 0.28, 0.32], [0.36, 0.26, 0.20], [0.24, 0.34, 0.28]],
        0.05,
    );
    let glass = if night && rng.bernoulli(0.7) {
        [2.4, 1.9, 1.1]
    } else {
        near(rng, &[[0.16, 0.20, 0.26], [0.45, 0.55, 0.62]], 0.04)
    };
    let door = near(rng, &[[0.35, 0.18, 0.10], [0.20, 0.32, 0.24], [0.55, 0.12, 0.12]], 0.04);
    let (half, floors) = (rng.uniform(2.6, 4.6), 1 + rng.below(3));
    let tall = 2.7 * floors as f32;
    let (pitch, eaves, brick) = (rng.uniform(1.2, 2.6), rng.uniform(0.2, 0.5), rng.bernoulli(0.5));
    let (columns, seed) = ((half * 0.9).round().max(2.0), rng.uniform(0.0, 99.0));
    b.shadow(half * 1.15);
    b.paint(HOUSE, [-half, 0.0, half, tall], |p| {
        let mut color = scale(wall, 0.86 + 0.22 * noise.fractal(p[0] + seed, p[1], 3));
        // Courses of bricks, or planks.
        let (course, run) = ((p[1] / 0.3).floor(), p[0] / 0.55);
        let joint = (p[1] / 0.3).rem_euclid(1.0) < 0.22
            || brick && (run + 0.5 * course.rem_euclid(2.0)).rem_euclid(1.0) < 0.15;
        if joint {
            color = scale(color, 0.78);
        }
        // One window to a cell, the door in the middle of the ground floor.
        let pitch = 2.0 * half / columns;
        let cell = [(p[0] + half).rem_euclid(pitch) - 0.5 * pitch, p[1].rem_euclid(2.7) - 1.5];
        let pane = round_box(cell, 0.5, 0.62, 0.0);
        if pane < 0.12 {
            let bars = cell[0].abs() < 0.05 || cell[1].abs() < 0.05;
            color = if pane > 0.0 || bars { [0.88, 0.87, 0.84] } else { glass };
        }
        if p[0].abs() < 0.55 && p[1] < 2.1 {
            color = scale(door, if p[0].abs() > 0.45 || p[1] > 2.0 { 1.5 } else { 1.0 });
        }
        (round_box([p[0], p[1] - 0.5 * tall], half, 0.5 * tall, 0.0), color)
    });
    let chimney = [half * rng.uniform(-0.6, 0.6), tall + 0.6 * pitch];
    b.paint(HOUSE, [chimney[0] - 0.4, tall, chimney[0] + 0.4, tall + 1.3 * pitch], |p| {
        (
            round_box([p[0] - chimney[0], p[1] - chimney[1]], 0.35, 0.6 * pitch, 0.0),
            [0.42, 0.26, 0.20],
        )
    });
    let (out, ridge) = (half + eaves, half * rng.uniform(0.0, 0.75));
    b.paint(HOUSE, [-out, tall - 0.2, out, tall + pitch], |p| {
        let row = (p[1] / 0.35).rem_euclid(1.0);
        let tile = (p[0] / 0.4 + 0.5 * (p[1] / 0.35).floor().rem_euclid(2.0)).rem_euclid(1.0);
        let color = scale(roof, 0.8 + 0.35 * row - if tile < 0.2 { 0.18 } else { 0.0 });
        // y upwards turns the order of the corners round.
        let corners = [
            [-out, -tall + 0.2],
            [-ridge, -tall - pitch],
            [ridge + 0.01, -tall - pitch],
            [out, -tall + 0.2],
        ];
        (convex([p[0], -p[1]], &corners), color)
    });
}

fn car(mut b: Brush, rng: &mut Rng, night: bool) {
    let paints = [
        [0.75, 0.10, 0.10],
        [0.12, 0.25, 0.60],
        [0.88, 0.88, 0.90],
        [0.10, 0.10, 0.12],
        [0.85, 0.70, 0.12],
        [0.20, 0.45, 0.28],
    ];
    let body = near(rng, &paints, 0.05);
    let glass = near(rng, &[[0.20, 0.26, 0.32], [0.50, 0.60, 0.68]], 0.04);
    let van = rng.bernoulli(0.3);
    let (half, roof) =
        (rng.uniform(1.9, 2.3), if van { rng.uniform(1.9, 2.2) } else { rng.uniform(1.4, 1.6) });
    let flip = if rng.bernoulli(0.5) { -1.0 } else { 1.0 };
    b.shadow(half * 1.1);
    // The cabin, front to the right before `flip`.
    let (rear, front) = if van { (0.98, 0.55) } else { (0.75, 0.30) };
    let corners = [
        [-rear * half, -0.8],
        [-(rear - 0.12) * half, -roof],
        [(front - 0.12) * half, -roof],
        [(front + 0.18) * half, -0.8],
    ];
    b.paint(CAR, [-half, 0.7, half, roof], |p| {
        let q = [p[0] * flip, -p[1]];
        let d = convex(q, &corners);
        let pillar = [-0.3, 0.2].iter().any(|x| (q[0] - x * half).abs() < 0.06);
        let pane = d < -0.1 && p[1] > 0.9 && !pillar && !(van && q[0] < -0.1 * half);
        let shine = if (q[0] + p[1] * 0.8).rem_euclid(1.3) < 0.25 { 1.35 } else { 1.0 };
        (d, if pane { scale(glass, shine) } else { scale(body, 0.8 + 0.25 * p[1] / roof) })
    });
    b.paint(CAR, [-half, 0.25, half, 1.0], |p| {
        let q = [p[0] * flip, p[1] - 0.62];
        let lamp = (q[0].abs() > half - 0.28) && (q[1] - 0.08).abs() < 0.1;
        let lamps = if q[0] > 0.0 { [1.0, 0.95, 0.7] } else { [0.85, 0.08, 0.05] };
        let mut color = scale(body, 0.62 + 0.5 * (p[1] - 0.25) / 0.7);
        if (p[1] - 0.78).abs() < 0.03 || (q[0] + 0.1).abs() < 0.025 {
            color = scale(color, 0.6);
        }
        (
            round_box(q, half, 0.37, 0.2),
            if lamp { scale(lamps, if night { 2.5 } else { 1.0 }) } else { color },
        )
    });
    for wheel in [-0.6, 0.6] {
        b.paint(CAR, [wheel * half - 0.36, 0.0, wheel * half + 0.36, 0.72], |p| {
            let r = (p[0] - wheel * half).hypot(p[1] - 0.36);
            (r - 0.36, if r < 0.18 { [0.62; 3] } else { [0.07; 3] })
        });
    }
}

fn sheep(mut b: Brush, rng: &mut Rng, noise: &Noise) {
    let wool = near(
        rng,
        &[[0.92, 0.90, 0.84], [0.78, 0.72, 0.62], [0.40, 0.34, 0.30], [0.95, 0.95, 0.95]],
        0.04,
    );
    let skin = near(rng, &[[0.10, 0.09, 0.09], [0.55, 0.45, 0.38]], 0.03);
    let flip = if rng.bernoulli(0.5) { -1.0 } else { 1.0 };
    let size = rng.uniform(1.1, 1.6);
    b.metre *= size;
    let graze = if rng.bernoulli(0.5) { 0.30 } else { 0.82 };
    let seed = rng.uniform(0.0, 99.0);
    b.shadow(0.6);
    for (i, x) in [-0.34, -0.22, 0.2, 0.32].into_iter().enumerate() {
        b.paint(SHEEP, [x - 0.1, 0.0, x + 0.1, 0.45], |p| {
            (capsule(p, [x, 0.03], [x, 0.4], 0.05), scale(skin, if i % 2 == 0 { 1.0 } else { 0.7 }))
        });
    }
    b.paint(SHEEP, [-0.7, 0.2, 0.7, 1.05], |p| {
        let curl = noise.fractal(p[0] * 9.0 + seed, p[1] * 9.0, 2);
        let d = ellipse([p[0], p[1] - 0.62], 0.56, 0.34) - 0.12 * (curl - 0.4);
        (d, scale(wool, 0.55 + 0.35 * curl + 0.3 * (p[1] - 0.3)))
    });
    let head = [0.62 * flip, graze];
    b.paint(SHEEP, [head[0] - 0.3, head[1] - 0.3, head[0] + 0.3, head[1] + 0.3], |p| {
        let q = [(p[0] - head[0]) * flip, p[1] - head[1]];
        let ear = ellipse([q[0] + 0.12, q[1] - 0.1], 0.11, 0.05);
        let eye = q[0].hypot(q[1] - 0.05) < 0.03;
        (
            ellipse([q[0] - 0.02, q[1] + 0.3 * q[0]], 0.2, 0.13).min(ear),
            if eye { [0.9; 3] } else { skin },
        )
    });
}

fn person(mut b: Brush, rng: &mut Rng) {
    let clothes = [
        [0.75, 0.15, 0.15],
        [0.15, 0.30, 0.65],
        [0.90, 0.90, 0.88],
        [0.12, 0.12, 0.14],
        [0.85, 0.65, 0.15],
        [0.25, 0.50, 0.30],
        [0.55, 0.30, 0.55],
    ];
    let (top, legs) = (
        near(rng, &clothes, 0.06),
        near(
            rng,
            &[[0.16, 0.20, 0.34], [0.30, 0.26, 0.22], [0.10, 0.10, 0.11], [0.55, 0.50, 0.40]],
            0.04,
        ),
    );
    let skin = near(rng, &[[0.92, 0.74, 0.62], [0.72, 0.52, 0.38], [0.40, 0.26, 0.18]], 0.04);
    let hair =
        near(rng, &[[0.10, 0.07, 0.05], [0.45, 0.30, 0.14], [0.80, 0.66, 0.36], [0.55; 3]], 0.03);
    let size = rng.uniform(1.0, 1.25);
    b.metre *= size;
    let (stride, swing, stripes) =
        (rng.uniform(0.05, 0.3), rng.uniform(0.08, 0.35), rng.bernoulli(0.35));
    b.shadow(0.42);
    for side in [-1.0, 1.0] {
        b.paint(PERSON, [-0.5, 0.0, 0.5, 0.95], |p| {
            let leg = capsule(p, [0.09 * side, 0.86], [stride * side, 0.08], 0.095);
            let shoe = capsule(p, [stride * side, 0.05], [stride * side + 0.09, 0.04], 0.06);
            (leg.min(shoe), if p[1] < 0.11 { [0.08; 3] } else { scale(legs, 0.9 + 0.12 * side) })
        });
    }
    for side in [-1.0, 1.0] {
        b.paint(PERSON, [-0.65, 0.7, 0.65, 1.5], |p| {
            let d = capsule(p, [0.21 * side, 1.38], [(0.24 + swing) * side, 0.88], 0.068);
            (d, if p[1] < 0.96 { skin } else { scale(top, 0.8) })
        });
    }
    b.paint(PERSON, [-0.35, 0.8, 0.35, 1.55], |p| {
        let stripe = stripes && (p[1] / 0.12).rem_euclid(1.0) < 0.4;
        let fold = 1.0 - 0.35 * (p[0] / 0.26).powi(2);
        (
            round_box([p[0], p[1] - 1.16], 0.24, 0.34, 0.12),
            scale(if stripe { [0.9; 3] } else { top }, fold),
        )
    });
    b.paint(PERSON, [-0.2, 1.45, 0.2, 1.9], |p| {
        let neck = round_box([p[0], p[1] - 1.5], 0.06, 0.1, 0.0);
        let head = ellipse([p[0], p[1] - 1.68], 0.125, 0.155);
        (
            head.min(neck),
            if p[1] > 1.72 + 0.6 * p[0].abs() - 0.05 && p[1] > 1.6 { hair } else { skin },
        )
    });
}
