//! Batch norm + residual + ReLU: PyTorch's numbers, plain loops at every tile edge, finite
//! differences, threads.

use picie::base::Error;
use picie::device::ops::norm::{EPS, MOMENTUM};
use picie::device::ops::{Norm, NormGrads, NormParams, NormSpec};

use crate::util::{
    Rig, close, dot, finite_difference, golden, plus, same_bits_on_any_threads, signed, to_f32,
    uniform,
};

/// Of the largest element. f32 sums of up to 3000 rows, in pieces, and one rounding of mean and 1/σ
/// each.
const TOL: f32 = 1e-5;

/// γ, β and the running statistics before the forward.
#[derive(Clone)]
pub(super) struct Params {
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

    pub fn input(&self, rig: &mut Rig) -> NormParams {
        NormParams {
            gamma: rig.input(&self.gamma),
            beta: rig.input(&self.beta),
            running_mean: rig.input(&self.mean),
            running_var: rig.input(&self.var),
        }
    }
}

/// The definition in f64: x normalised by each group, γ and β applied; `saved`; running statistics
/// after all groups.
pub(super) struct Plain {
    pub y: Vec<f64>,
    pub saved: Vec<f64>,
    pub mean: Vec<f64>,
    pub var: Vec<f64>,
}

/// The elements of channel j of group g.
fn column(s: NormSpec, g: usize, j: usize) -> impl Iterator<Item = usize> {
    (0..s.rows).map(move |r| (g * s.rows + r) * s.c + j)
}

pub(super) fn plain_forward(s: NormSpec, x: &[f32], p: &Params) -> Plain {
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

/// dx, dgamma, dbeta from the gradient `dy` of γ·x̂ + β.
pub(super) fn plain_backward(
    s: NormSpec,
    x: &[f32],
    dy: &[f64],
    saved: &[f64],
    gamma: &[f32],
) -> [Vec<f64>; 3] {
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
    [dx, dgamma, dbeta]
}

#[derive(Clone)]
struct Given {
    spec: NormSpec,
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    relu: bool,
    dz: Vec<f32>,
    params: Params,
}

impl Given {
    fn new(spec: NormSpec, residual: bool, relu: bool, seed: u64) -> Self {
        Given {
            spec,
            x: uniform(seed, 0, spec.len(), -1.0, 3.0),
            residual: residual.then(|| uniform(seed, 1, spec.len(), -1.0, 1.0)),
            relu,
            dz: uniform(seed, 2, spec.len(), -1.0, 1.0),
            params: Params::new(seed, 3, spec.c),
        }
    }
}

struct Forward {
    z: Vec<f32>,
    saved: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
}

struct Backward {
    dx: Vec<f32>,
    dresidual: Option<Vec<f32>>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
}

fn forward(g: &Given) -> Forward {
    let (s, mut rig) = (g.spec, Rig::new());
    let plan = rig.dev.plan_norm(s).unwrap();
    let (x, residual) = (rig.input(&g.x), g.residual.as_ref().map(|r| rig.input(r)));
    let params = g.params.input(&mut rig);
    let (z, saved) = (rig.output(s.len()), rig.output(s.saved_len()));
    rig.ready();
    rig.dev.norm_forward(&plan, z, saved, x, residual, g.relu, params).unwrap();
    Forward {
        z: rig.read(z),
        saved: rig.read(saved),
        mean: rig.read(params.running_mean),
        var: rig.read(params.running_var),
    }
}

/// `dgamma` and `dbeta` begin with these.
fn before(c: usize) -> [Vec<f32>; 2] {
    [signed(6, c), signed(7, c)]
}

/// The backward alone: `z` and `saved` come from elsewhere.
fn backward(g: &Given, z: &[f32], saved: &[f32]) -> Backward {
    let (s, mut rig) = (g.spec, Rig::new());
    let plan = rig.dev.plan_norm(s).unwrap();
    let (x, dz, saved) = (rig.input(&g.x), rig.input(&g.dz), rig.input(saved));
    let (z, gamma) = (g.relu.then(|| rig.input(z)), rig.input(&g.params.gamma));
    let [dgamma, dbeta] = before(s.c).map(|v| rig.input(&v));
    let (dx, dresidual) = (rig.output(s.len()), g.residual.is_some().then(|| rig.output(s.len())));
    rig.ready();
    rig.dev
        .norm_backward(&plan, NormGrads { dx, dresidual, dgamma, dbeta }, dz, z, x, saved, gamma)
        .unwrap();
    Backward {
        dx: rig.read(dx),
        dresidual: dresidual.map(|d| rig.read(d)),
        dgamma: rig.read(dgamma),
        dbeta: rig.read(dbeta),
    }
}

/// Both, by plain loops; the gradients of γ and β added to what was there.
fn plain(g: &Given) -> (Forward, Backward) {
    let f = plain_forward(g.spec, &g.x, &g.params);
    let z =
        f.y.iter()
            .enumerate()
            .map(|(i, &y)| y + g.residual.as_ref().map_or(0.0, |r| f64::from(r[i])));
    let z: Vec<f64> = z.map(|z| if g.relu { z.max(0.0) } else { z }).collect();
    let passed = |(i, &dz): (usize, &f32)| if g.relu && z[i] <= 0.0 { 0.0 } else { f64::from(dz) };
    let dy: Vec<f64> = g.dz.iter().enumerate().map(passed).collect();
    let [dx, dgamma, dbeta] = plain_backward(g.spec, &g.x, &dy, &f.saved, &g.params.gamma);
    let [dgamma0, dbeta0] = before(g.spec.c);
    let back = Backward {
        dx: to_f32(&dx),
        dresidual: g.residual.is_some().then(|| to_f32(&dy)),
        dgamma: plus(&dgamma0, &to_f32(&dgamma)),
        dbeta: plus(&dbeta0, &to_f32(&dbeta)),
    };
    (
        Forward {
            z: to_f32(&z),
            saved: to_f32(&f.saved),
            mean: to_f32(&f.mean),
            var: to_f32(&f.var),
        },
        back,
    )
}

#[track_caller]
fn compare(g: &Given, (want, want_back): (Forward, Backward)) {
    let name = |what: &str| {
        format!("{what} of {:?} residual {} relu {}", g.spec, g.residual.is_some(), g.relu)
    };
    let got = forward(g);
    close(&name("z"), &got.z, &want.z, TOL);
    close(&name("saved"), &got.saved, &want.saved, TOL);
    close(&name("running mean"), &got.mean, &want.mean, TOL);
    close(&name("running var"), &got.var, &want.var, TOL);
    let got = backward(g, &want.z, &want.saved);
    close(&name("dx"), &got.dx, &want_back.dx, TOL);
    close(&name("dgamma"), &got.dgamma, &want_back.dgamma, TOL);
    close(&name("dbeta"), &got.dbeta, &want_back.dbeta, TOL);
    // Copied or zero, never computed.
    assert_eq!(got.dresidual, want_back.dresidual, "{}", name("dresidual"));
}

#[test]
fn forward_and_gradients_are_pytorchs() {
    let golden = golden("norm");
    let mut cases = 0;
    while let Some(s) = golden.get(&format!("{cases}.spec")) {
        let get = |name: &str| golden[&format!("{cases}.{name}")].clone();
        let s: Vec<usize> = s.iter().map(|&v| v as usize).collect();
        let given =
            Given::new(NormSpec { groups: s[0], rows: s[1], c: s[2] }, s[3] == 1, s[4] == 1, cases);
        let [dgamma, dbeta] = before(s[2]);
        let back = Backward {
            dx: get("dx"),
            dresidual: given.residual.is_some().then(|| get("dresidual")),
            dgamma: plus(&dgamma, &get("dgamma")),
            dbeta: plus(&dbeta, &get("dbeta")),
        };
        compare(
            &given,
            (
                Forward { z: get("z"), saved: get("saved"), mean: get("mean"), var: get("var") },
                back,
            ),
        );
        cases += 1;
    }
    assert!(cases >= 8, "the golden file lost its cases");
}

/// Moves rows apart: few of them could lie close together by chance, and 1/σ would then multiply
/// roundings.
pub(super) fn spread(x: &mut [f32], c: usize) {
    for (i, row) in x.chunks_mut(c).enumerate() {
        row.iter_mut().for_each(|v| *v += [2.0, -2.0][i % 2]);
    }
}

#[test]
fn every_size_agrees_with_plain_loops() {
    // Two rows have no gradient (both are ±1 whatever x is), so three are the fewest.
    let (rows, channels) =
        ([3, 4, 7, 8, 9, 31, 33, 64, 257, 1000], [1, 3, 4, 15, 16, 17, 31, 32, 33, 64]);
    for (i, &rows) in rows.iter().enumerate() {
        for (j, &c) in channels.iter().enumerate() {
            let spec = NormSpec { groups: 1 + (i + j) % 3, rows, c };
            let mut given =
                Given::new(spec, i % 2 == 0, (i / 2 + j) % 2 == 0, (100 * i + j) as u64);
            spread(&mut given.x, c);
            compare(&given, plain(&given));
        }
    }
}

#[test]
fn a_mean_far_from_zero_does_not_drown_the_variance() {
    let mut given = Given::new(NormSpec { groups: 2, rows: 500, c: 5 }, false, false, 1);
    given.x.iter_mut().for_each(|x| *x += 60.0);
    let (want, got) = (plain(&given).0, forward(&given));
    // A mean of 61 rounds to within 2e-6 of it, σ is 1.2; E[x²] − E[x]² in f32 would be off by 3e-4
    // and more.
    close("z", &got.z, &want.z, 2e-5);
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    for (seed, (residual, relu)) in
        [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
    {
        let given = Given::new(NormSpec { groups: 2, rows: 40, c: 3 }, residual, relu, seed as u64);
        let got = forward(&given);
        let grads = backward(&given, &got.z, &got.saved);
        let loss = |g: Given| dot(&forward(&g).z, &g.dz);
        // step²·f''' and f32 in z over the step stay below 1e-3; a ReLU that opens within the step
        // adds its share.
        let check = |name: &str, x: &[f32], grad: &[f32], f: &dyn Fn(&[f32]) -> Given| {
            finite_difference(name, x, grad, 20, 0.002, 0.01, |x| loss(f(x)));
        };
        let [dgamma, dbeta] = before(3).map(|v| v.iter().map(|v| -v).collect::<Vec<_>>());
        let with = |params: Params| Given { params, ..given.clone() };
        let p = &given.params;
        check("dx", &given.x, &grads.dx, &|x| Given { x: x.to_vec(), ..given.clone() });
        check("dgamma", &p.gamma, &plus(&grads.dgamma, &dgamma), &|v| {
            with(Params { gamma: v.to_vec(), ..p.clone() })
        });
        check("dbeta", &p.beta, &plus(&grads.dbeta, &dbeta), &|v| {
            with(Params { beta: v.to_vec(), ..p.clone() })
        });
        if let (Some(r), Some(dr)) = (&given.residual, &grads.dresidual) {
            check("dresidual", r, dr, &|r| Given { residual: Some(r.to_vec()), ..given.clone() });
        }
    }
}

/// (folded, bias) of w (c, taps).
fn fold(w: &[f32], p: &Params) -> (Vec<f32>, Vec<f32>) {
    let mut rig = Rig::new();
    let w = rig.input(w);
    let params = p.input(&mut rig);
    let (folded, bias) = (rig.output(w.len), rig.output(p.gamma.len()));
    rig.ready();
    rig.dev.norm_fold(folded, bias, w, params).unwrap();
    (rig.read(folded), rig.read(bias))
}

#[test]
fn folded_weights_are_pytorchs_eval_mode() {
    let golden = golden("norm");
    for i in 0..8 {
        let (c, taps) = (golden[&format!("{i}.bias")].len(), 6);
        let (folded, bias) = fold(&uniform(i, 7, c * taps, -1.0, 1.0), &Params::new(i, 3, c));
        // A root, a division, a product and a difference.
        close("folded", &folded, &golden[&format!("{i}.folded")], 5e-7);
        close("bias", &bias, &golden[&format!("{i}.bias")], 5e-7);
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    for (groups, rows, c) in [(2, 1000, 33), (1, 4097, 5), (3, 50, 300)] {
        let given = Given::new(NormSpec { groups, rows, c }, true, true, 9);
        same_bits_on_any_threads(&format!("{:?}", given.spec), || {
            let f = forward(&given);
            let b = backward(&given, &f.z, &f.saved);
            let w = uniform(9, 8, c * 18, -1.0, 1.0);
            let (folded, bias) = fold(&w, &given.params);
            [
                f.z,
                f.saved,
                f.mean,
                f.var,
                b.dx,
                b.dresidual.unwrap(),
                b.dgamma,
                b.dbeta,
                folded,
                bias,
            ]
            .concat()
        });
    }
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let (s, mut rig) = (NormSpec { groups: 2, rows: 5, c: 4 }, Rig::new());
    let plan = rig.dev.plan_norm(s).unwrap();
    let params = Params::new(1, 3, 4).input(&mut rig);
    let [x, z, other, more] = [0; 4].map(|_| rig.zeros::<f32>(s.len()));
    let (saved, dgamma, dbeta, bias) =
        (rig.zeros(s.saved_len()), rig.zeros(4), rig.zeros(4), rig.zeros(4));
    let short = rig.zeros(3);
    rig.ready();
    let dev = &mut rig.dev;
    let mut refused = vec![
        dev.norm_forward(&plan, short, saved, x, None, true, params),
        dev.norm_forward(&plan, z, short, x, None, true, params),
        dev.norm_forward(&plan, z, saved, short, None, true, params),
        dev.norm_forward(&plan, z, saved, x, Some(short), true, params),
        dev.norm_fold(short, bias, x, params),
        dev.norm_fold(z, short, x, params),
    ];
    for params in [
        NormParams { gamma: short, ..params },
        NormParams { beta: short, ..params },
        NormParams { running_mean: short, ..params },
        NormParams { running_var: short, ..params },
    ] {
        refused.push(dev.norm_forward(&plan, z, saved, x, None, false, params));
    }
    refused.push(dev.norm_fold(z, bias, x, NormParams { running_var: short, ..params }));
    let grads = || NormGrads { dx: other, dresidual: None, dgamma, dbeta };
    for grads in [
        NormGrads { dx: short, ..grads() },
        NormGrads { dresidual: Some(short), ..grads() },
        NormGrads { dgamma: short, ..grads() },
        NormGrads { dbeta: short, ..grads() },
    ] {
        refused.push(dev.norm_backward(&plan, grads, more, Some(z), x, saved, params.gamma));
    }
    refused.push(dev.norm_backward(&plan, grads(), short, Some(z), x, saved, params.gamma));
    refused.push(dev.norm_backward(&plan, grads(), more, Some(short), x, saved, params.gamma));
    refused.push(dev.norm_backward(&plan, grads(), more, None, short, saved, params.gamma));
    refused.push(dev.norm_backward(&plan, grads(), more, None, x, short, params.gamma));
    refused.push(dev.norm_backward(&plan, grads(), more, None, x, saved, short));
    for (i, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Shape { .. })), "call {i}: {result:?}");
    }
}
