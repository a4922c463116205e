//! Batch norm + residual + ReLU on CUDA against the CPU engine: every tile edge and chunk edge,
//! groups, a mean far from zero, finite differences.

use half::{bf16, f16};
use picie::base::Error;
use picie::device::ops::norm::EPS;
use picie::device::ops::{Memory, Norm, NormGrads, NormParams, NormSpec};
use picie::device::{Activation, Slot};

use crate::util::{Rig, close, dot, finite_difference, round, signed, uniform};

/// Of f32 results, and of the arithmetic in all others: sums in another order, one rounding of mean
/// and 1/σ each.
pub(super) const TOL: f32 = 1e-5;

/// Of activations as stored: half a unit in the last place of the largest, and the arithmetic.
pub(super) fn stored<A: Activation>() -> f32 {
    let unit = |digits: i32| 0.5f32.powi(digits);
    match A::NAME {
        "bf16" => unit(8) + TOL,
        "f16" => unit(11) + TOL,
        _ => TOL,
    }
}

/// γ, β, running mean and running variance.
pub(super) fn params(seed: u64, c: usize) -> [Vec<f32>; 4] {
    let draw = |t, lo, hi| uniform(seed, t, c, lo, hi);
    [draw(10, -1.5, 1.5), draw(11, -1.0, 1.0), draw(12, -1.0, 1.0), draw(13, 0.1, 2.0)]
}

pub(super) fn slots<B: Memory>(rig: &mut Rig<B>, params: &[Vec<f32>; 4]) -> NormParams {
    let [gamma, beta, running_mean, running_var] = params.each_ref().map(|v| rig.input(v));
    NormParams { gamma, beta, running_mean, running_var }
}

#[derive(Clone)]
struct Given {
    spec: NormSpec,
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    relu: bool,
    dz: Vec<f32>,
    params: [Vec<f32>; 4],
}

impl Given {
    /// Numbers that `A` holds. Rows stand apart, so that 1/σ of few does not multiply roundings.
    fn new<A: Activation>(spec: NormSpec, residual: bool, relu: bool, seed: u64) -> Self {
        let mut x = uniform(seed, 0, spec.len(), -1.0, 3.0);
        x.chunks_mut(spec.c)
            .enumerate()
            .for_each(|(i, row)| row.iter_mut().for_each(|v| *v += [1.0, -1.0][i % 2]));
        Given {
            spec,
            x: round::<A>(&x),
            residual: residual.then(|| round::<A>(&uniform(seed, 1, spec.len(), -1.0, 1.0))),
            relu,
            dz: round::<A>(&uniform(seed, 2, spec.len(), -1.0, 1.0)),
            params: params(seed, spec.c),
        }
    }
}

/// z; then saved, running mean and running variance.
fn forward<B: Norm>(mut rig: Rig<B>, g: &Given) -> (Vec<f32>, [Vec<f32>; 3]) {
    let plan = rig.dev.plan_norm(g.spec).unwrap();
    let (x, residual) = (rig.act(&g.x), g.residual.as_ref().map(|r| rig.act(r)));
    let params = slots(&mut rig, &g.params);
    let (z, saved) = (rig.act_output(g.spec.len()), rig.output(g.spec.saved_len()));
    rig.ready();
    rig.dev.norm_forward(&plan, z, saved, x, residual, g.relu, params).unwrap();
    (rig.read_act(z), [saved, params.running_mean, params.running_var].map(|slot| rig.read(slot)))
}

/// dx, dresidual, [dgamma, dbeta], the last two added to `signed(6 | 7)`.
type Gradients = (Vec<f32>, Option<Vec<f32>>, [Vec<f32>; 2]);

fn backward<B: Norm>(mut rig: Rig<B>, g: &Given, z: &[f32], saved: &[f32]) -> Gradients {
    let plan = rig.dev.plan_norm(g.spec).unwrap();
    let (x, dz, saved) = (rig.act(&g.x), rig.act(&g.dz), rig.input(saved));
    let (z, gamma) = (g.relu.then(|| rig.act(z)), rig.input(&g.params[0]));
    let [dgamma, dbeta] = [6, 7].map(|seed| rig.input(&signed(seed, g.spec.c)));
    let (dx, dresidual) =
        (rig.act_output(g.spec.len()), g.residual.is_some().then(|| rig.act_output(g.spec.len())));
    rig.ready();
    rig.dev
        .norm_backward(&plan, NormGrads { dx, dresidual, dgamma, dbeta }, dz, z, x, saved, gamma)
        .unwrap();
    (rig.read_act(dx), dresidual.map(|d| rig.read_act(d)), [rig.read(dgamma), rig.read(dbeta)])
}

/// Both engines on the same numbers. False where there is no CUDA to compare.
fn compare<A: Activation>(g: &Given) -> bool {
    let [Some(first), Some(second)] = [(); 2].map(|()| Rig::cuda::<A>()) else { return false };
    let name = |what| {
        format!(
            "{what} of {:?} {} residual {} relu {}",
            g.spec,
            A::NAME,
            g.residual.is_some(),
            g.relu
        )
    };
    let (want, want_stats) = forward(Rig::new(), g);
    let (z, stats) = forward(first, g);
    close(&name("z"), &z, &want, stored::<A>());
    for (what, (got, want)) in
        ["saved", "running mean", "running var"].into_iter().zip(stats.iter().zip(&want_stats))
    {
        close(&name(what), got, want, TOL);
    }
    // The same z for both: where a ReLU opens differently is the forward's matter.
    let (want, saved) = (round::<A>(&want), &want_stats[0]);
    let (want_dx, want_dresidual, want_sums) = backward(Rig::new(), g, &want, saved);
    let (dx, dresidual, sums) = backward(second, g, &want, saved);
    close(&name("dx"), &dx, &want_dx, stored::<A>());
    assert_eq!(dresidual, want_dresidual, "{}: copied or zero, never computed", name("dresidual"));
    close(&name("dgamma"), &sums[0], &want_sums[0], TOL);
    close(&name("dbeta"), &sums[1], &want_sums[1], TOL);
    true
}

fn edges<A: Activation>() {
    // One column, half-filled tiles, whole tiles, a second tile of one column, many tiles; a chunk
    // of rows is a multiple of 1024 rows of 8 channels, of 256 of 24, of 128 of 64, of 32 of 256
    // and more.
    let shapes = [
        (8, [3, 1023, 1024, 1025]),
        (24, [255, 256, 257, 4]),
        (64, [127, 128, 129, 700]),
        (256, [5, 95, 96, 97]),
        (264, [31, 32, 33, 65]),
        (2048, [7, 8, 9, 33]),
    ];
    for (i, (c, rows)) in shapes.into_iter().enumerate() {
        for (j, rows) in rows.into_iter().enumerate() {
            let spec = NormSpec { groups: 1 + (i + j) % 3, rows, c };
            if !compare::<A>(&Given::new::<A>(
                spec,
                (i + j / 2) % 2 == 0,
                j % 2 == 0,
                (10 * i + j) as u64,
            )) {
                return;
            }
        }
    }
    // More partials than the finalizing block has rows of threads.
    compare::<A>(&Given::new::<A>(
        NormSpec { groups: 1, rows: 32 * 150 + 1, c: 136 },
        true,
        true,
        99,
    ));
}

#[test]
fn every_size_agrees_with_the_cpu_in_f32() {
    edges::<f32>();
}

#[test]
fn every_size_agrees_with_the_cpu_in_bf16() {
    edges::<bf16>();
}

#[test]
fn every_size_agrees_with_the_cpu_in_f16() {
    edges::<f16>();
}

/// A mean of 1000 at σ = 1: E[x²] − E[x]² in f32 would leave no digit of the variance.
fn large_mean<A: Activation>() {
    let Some(rig) = Rig::cuda::<A>() else { return };
    let spec = NormSpec { groups: 2, rows: 500, c: 16 };
    let mut given = Given::new::<A>(spec, false, false, 1);
    given.x = round::<A>(&signed(3, spec.len()).iter().map(|x| 1000.0 + x).collect::<Vec<_>>());
    let (_, [saved, ..]) = forward(rig, &given);
    for (g, j) in (0..spec.groups * spec.c).map(|i| (i / spec.c, i % spec.c)) {
        let column =
            || (0..spec.rows).map(|r| f64::from(given.x[(g * spec.rows + r) * spec.c + j]));
        let mean = column().sum::<f64>() / spec.rows as f64;
        let var = column().map(|x| (x - mean).powi(2)).sum::<f64>() / spec.rows as f64;
        close("mean", &[saved[2 * g * spec.c + j]], &[mean as f32], 1e-7);
        close(
            "1/σ",
            &[saved[(2 * g + 1) * spec.c + j]],
            &[(1.0 / (var + f64::from(EPS)).sqrt()) as f32],
            TOL,
        );
    }
}

#[test]
fn a_mean_far_from_zero_does_not_drown_the_variance() {
    large_mean::<f32>();
    large_mean::<bf16>();
    large_mean::<f16>();
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    for (seed, (residual, relu)) in
        [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
    {
        let given =
            Given::new::<f32>(NormSpec { groups: 2, rows: 40, c: 8 }, residual, relu, seed as u64);
        let cuda = || Rig::cuda::<f32>().unwrap();
        let Some(rig) = Rig::cuda::<f32>() else { return };
        let (z, [saved, ..]) = forward(rig, &given);
        let (dx, dresidual, [dgamma, dbeta]) = backward(cuda(), &given, &z, &saved);
        let loss = |g: Given| dot(&forward(cuda(), &g).0, &given.dz);
        // step²·f''' and f32 in z over the step stay below 1e-3; a ReLU that opens within the step
        // adds its share.
        let check = |name: &str, x: &[f32], grad: &[f32], f: &dyn Fn(&mut Given, Vec<f32>)| {
            finite_difference(name, x, grad, 10, 0.002, 0.01, |x| {
                let mut moved = given.clone();
                f(&mut moved, x.to_vec());
                loss(moved)
            });
        };
        let added = |sums: &[f32], seed| -> Vec<f32> {
            sums.iter().zip(signed(seed, 8)).map(|(s, b)| s - b).collect()
        };
        check("dx", &given.x, &dx, &|g, x| g.x = x);
        check("dgamma", &given.params[0], &added(&dgamma, 6), &|g, x| g.params[0] = x);
        check("dbeta", &given.params[1], &added(&dbeta, 7), &|g, x| g.params[1] = x);
        if let (Some(r), Some(dr)) = (&given.residual, &dresidual) {
            check("dresidual", r, dr, &|g, r| g.residual = Some(r));
        }
    }
}

/// (folded, bias) of w (c, taps).
fn fold<B: Norm>(mut rig: Rig<B>, w: &[f32], params: &[Vec<f32>; 4]) -> (Vec<f32>, Vec<f32>) {
    let w = rig.act(w);
    let params = slots(&mut rig, params);
    let (folded, bias) = (rig.act_output(w.len), rig.act_output(params.gamma.len));
    rig.ready();
    rig.dev.norm_fold(folded, bias, w, params).unwrap();
    (rig.read_act(folded), rig.read_act(bias))
}

fn folds<A: Activation>() {
    // Shorter than a block, its length, longer; the stem's 7·7·4 is no multiple of 8.
    for (k, taps) in [(5, 3), (64, 196), (3, 256), (24, 577)] {
        let Some(rig) = Rig::cuda::<A>() else { return };
        let (w, params) = (round::<A>(&uniform(7, 0, k * taps, -1.0, 1.0)), params(k as u64, k));
        let (got, want) = (fold(rig, &w, &params), fold(Rig::new(), &w, &params));
        close("folded", &got.0, &want.0, stored::<A>());
        // A root, a division, a product and a difference, then rounded as the weights are.
        close("bias", &got.1, &want.1, stored::<A>());
    }
}

#[test]
fn folded_weights_agree_with_the_cpu() {
    folds::<f32>();
    folds::<bf16>();
    folds::<f16>();
}

#[test]
fn plans_and_doors_refuse() {
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let refused =
        |plan: Result<_, Error>| assert!(matches!(plan.map(|_| ()), Err(Error::Input { .. })));
    refused(rig.dev.plan_norm(NormSpec { groups: 1, rows: 5, c: 12 }));
    refused(rig.dev.plan_norm(NormSpec { groups: 1, rows: usize::MAX / 64, c: 8 }));
    let s = NormSpec { groups: 2, rows: 5, c: 8 };
    let plan = rig.dev.plan_norm(s).unwrap();
    let params = slots(&mut rig, &params(1, 8));
    let [x, z, dz, dx]: [Slot<f32>; 4] = [0; 4].map(|_| rig.zeros(s.len()));
    let (saved, dgamma, dbeta, short) =
        (rig.zeros(s.saved_len()), rig.zeros(8), rig.zeros(8), rig.zeros(7));
    rig.ready();
    let grads = NormGrads { dx, dresidual: None, dgamma, dbeta };
    let refused = [
        rig.dev.norm_forward(&plan, short, saved, x, None, true, params),
        rig.dev.norm_forward(&plan, z, saved, x, Some(short), true, params),
        rig.dev.norm_forward(
            &plan,
            z,
            saved,
            x,
            None,
            true,
            NormParams { running_var: short, ..params },
        ),
        rig.dev.norm_backward(
            &plan,
            NormGrads { dgamma: short, ..grads },
            dz,
            Some(z),
            x,
            saved,
            params.gamma,
        ),
        rig.dev.norm_backward(
            &plan,
            NormGrads { dx, dresidual: None, dgamma, dbeta },
            dz,
            Some(short),
            x,
            saved,
            dbeta,
        ),
        rig.dev.norm_fold(z, short, x, params),
    ];
    for (i, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Shape { got: 7, .. })), "call {i}: {result:?}");
    }
}
