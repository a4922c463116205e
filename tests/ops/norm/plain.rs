//! The definition, by plain loops in f64, and its parameters.

use picie::device::ops::norm::{EPS, MOMENTUM};
use picie::device::ops::{NormParams, NormSpec};

use crate::util::{Results, Rig, to_f32, uniform};

/// γ, β and the running statistics before the forward.
pub struct Params {
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub mean: Vec<f32>,
    pub var: Vec<f32>,
}

impl Params {
    /// Drawn as the goldens draw them, from tensor number `t` on.
    pub fn new(seed: u64, t: u32, c: usize) -> Self {
        let draw = |i, lo, hi| uniform(seed, t + i, c, lo, hi);
        Params {
            gamma: draw(0, -1.5, 1.5),
            beta: draw(1, -1.0, 1.0),
            mean: draw(2, -1.0, 1.0),
            var: draw(3, 0.1, 2.0),
        }
    }

    /// For ops that only read them.
    pub fn read(&self, rig: &mut Rig) -> NormParams {
        NormParams {
            gamma: rig.input("gamma", &self.gamma),
            beta: rig.input("beta", &self.beta),
            running_mean: rig.input("running_mean", &self.mean),
            running_var: rig.input("running_var", &self.var),
        }
    }

    /// For ops that move the running statistics.
    pub fn moved(&self, rig: &mut Rig) -> NormParams {
        self.named(rig, "")
    }

    /// The same under names that end in `suffix`.
    pub fn named(&self, rig: &mut Rig, suffix: &str) -> NormParams {
        let of = |name: &str| format!("{name}{suffix}");
        NormParams {
            gamma: rig.input(&of("gamma"), &self.gamma),
            beta: rig.input(&of("beta"), &self.beta),
            running_mean: rig.inout(&of("running_mean"), &self.mean),
            running_var: rig.inout(&of("running_var"), &self.var),
        }
    }
}

/// The definition in f64: x normalised by each group, γ and β applied; `saved`; running statistics
/// after all groups.
pub struct Plain {
    pub y: Vec<f64>,
    pub saved: Vec<f64>,
    pub mean: Vec<f64>,
    pub var: Vec<f64>,
}

/// The elements of channel j of group g.
fn column(s: NormSpec, g: usize, j: usize) -> impl Iterator<Item = usize> {
    (0..s.rows).map(move |r| (g * s.rows + r) * s.c + j)
}

pub fn plain_forward(s: NormSpec, x: &[f32], p: &Params) -> Plain {
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let mut out = Plain {
        y: vec![0.0; s.len()],
        saved: vec![0.0; s.saved_len()],
        mean: wide(&p.mean),
        var: wide(&p.var),
    };
    let (rows, momentum) = (s.rows as f64, f64::from(MOMENTUM));
    for (g, j) in (0..s.groups * s.c).map(|i| (i / s.c, i % s.c)) {
        let mean = column(s, g, j).map(|i| f64::from(x[i])).sum::<f64>() / rows;
        let var = column(s, g, j).map(|i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / rows;
        let inv = 1.0 / (var + f64::from(EPS)).sqrt();
        (out.saved[2 * g * s.c + j], out.saved[(2 * g + 1) * s.c + j]) = (mean, inv);
        out.mean[j] += momentum * (mean - out.mean[j]);
        out.var[j] += momentum * (var * rows / (rows - 1.0) - out.var[j]);
        for i in column(s, g, j) {
            out.y[i] =
                f64::from(p.gamma[j]) * (f64::from(x[i]) - mean) * inv + f64::from(p.beta[j]);
        }
    }
    out
}

/// What a forward leaves: z, and what a norm of `plain` does.
pub fn kept(z: Vec<f32>, plain: Plain) -> Results {
    Results::of([
        ("z", z.into()),
        ("saved", plain.saved.into()),
        ("running_mean", plain.mean.into()),
        ("running_var", plain.var.into()),
    ])
}

/// dx, and what is added to dgamma and dbeta, from the gradient `dy` of γ·x̂ + β.
pub fn plain_backward(
    s: NormSpec,
    x: &[f32],
    dy: &[f64],
    saved: &[f64],
    gamma: &[f32],
) -> [Vec<f32>; 3] {
    let [mut dx, mut dgamma, mut dbeta] = [vec![0.0; s.len()], vec![0.0; s.c], vec![0.0; s.c]];
    for (g, j) in (0..s.groups * s.c).map(|i| (i / s.c, i % s.c)) {
        let (mean, inv) = (saved[2 * g * s.c + j], saved[(2 * g + 1) * s.c + j]);
        let hat = |i: usize| (f64::from(x[i]) - mean) * inv;
        let sum: f64 = column(s, g, j).map(|i| dy[i]).sum();
        let along: f64 = column(s, g, j).map(|i| dy[i] * hat(i)).sum();
        dgamma[j] += along;
        dbeta[j] += sum;
        for i in column(s, g, j) {
            dx[i] = f64::from(gamma[j]) * inv * (dy[i] - (sum + hat(i) * along) / s.rows as f64);
        }
    }
    [to_f32(&dx), to_f32(&dgamma), to_f32(&dbeta)]
}

/// Moves rows apart: few of them could lie close together by chance, and 1/σ would then multiply
/// roundings.
pub fn spread(x: &mut [f32], c: usize) {
    for (i, row) in x.chunks_mut(c).enumerate() {
        row.iter_mut().for_each(|v| *v += [2.0, -2.0][i % 2]);
    }
}
