//! Batch norm + ReLU + max-pool on CUDA against the CPU engine: every edge of windows, tiles and
//! chunks, ties, finite differences.

use half::{bf16, f16};
use picie::base::Error;
use picie::device::Activation;
use picie::device::ops::{Stem, StemSpec};

use super::norm::{TOL, params, slots, stored};
use crate::util::{Rig, close, dot, finite_difference, round, signed, uniform};

#[derive(Clone)]
struct Given {
    spec: StemSpec,
    x: Vec<f32>,
    dz: Vec<f32>,
    params: [Vec<f32>; 4],
}

impl Given {
    /// Numbers that `A` holds. Pixels stand apart, so that 1/σ of few does not multiply roundings.
    fn new<A: Activation>(spec: StemSpec, seed: u64) -> Self {
        let mut x = uniform(seed, 0, spec.x_len(), -1.0, 1.0);
        x.chunks_mut(spec.c)
            .enumerate()
            .for_each(|(i, row)| row.iter_mut().for_each(|v| *v += [0.5, -0.5][i % 2]));
        let dz = round::<A>(&uniform(seed, 1, spec.z_len(), -1.0, 1.0));
        Given { spec, x: round::<A>(&x), dz, params: params(seed, spec.c) }
    }
}

struct Forward {
    z: Vec<f32>,
    argmax: Option<Vec<u8>>,
    /// saved, running mean, running variance.
    stats: [Vec<f32>; 3],
}

fn forward<B: Stem>(mut rig: Rig<B>, g: &Given, keep: bool) -> Forward {
    let plan = rig.dev.plan_stem(g.spec).unwrap();
    let (x, params) = (rig.act(&g.x), slots(&mut rig, &g.params));
    let (z, saved) = (rig.act_output(g.spec.z_len()), rig.output(g.spec.saved_len()));
    let argmax = keep.then(|| rig.output(g.spec.z_len()));
    rig.ready();
    rig.dev.stem_forward(&plan, z, argmax, saved, x, params).unwrap();
    Forward {
        z: rig.read_act(z),
        argmax: argmax.map(|slot| rig.read(slot)),
        stats: [saved, params.running_mean, params.running_var].map(|slot| rig.read(slot)),
    }
}

/// dx, and [dgamma, dbeta] added to `signed(6 | 7)`.
fn backward<B: Stem>(
    mut rig: Rig<B>,
    g: &Given,
    argmax: &[u8],
    saved: &[f32],
) -> (Vec<f32>, [Vec<f32>; 2]) {
    let plan = rig.dev.plan_stem(g.spec).unwrap();
    let (x, dz, argmax, saved) =
        (rig.act(&g.x), rig.act(&g.dz), rig.input(argmax), rig.input(saved));
    let params = slots(&mut rig, &g.params);
    let [dgamma, dbeta] = [6, 7].map(|seed| rig.input(&signed(seed, g.spec.c)));
    let dx = rig.act_output(g.spec.x_len());
    rig.ready();
    rig.dev.stem_backward(&plan, dx, dgamma, dbeta, dz, argmax, x, saved, params).unwrap();
    (rig.read_act(dx), [rig.read(dgamma), rig.read(dbeta)])
}

fn infer<B: Stem>(mut rig: Rig<B>, s: StemSpec, x: &[f32]) -> Vec<f32> {
    let plan = rig.dev.plan_stem(s).unwrap();
    let (x, z) = (rig.act(x), rig.act_output(s.z_len()));
    rig.ready();
    rig.dev.stem_infer(&plan, z, x).unwrap();
    rig.read_act(z)
}

/// Both engines on the same numbers. False where there is no CUDA to compare.
fn compare<A: Activation>(g: &Given) -> bool {
    let [Some(first), Some(second), Some(third), Some(fourth)] = [(); 4].map(|()| Rig::cuda::<A>())
    else {
        return false;
    };
    let name = |what| format!("{what} of {:?} {}", g.spec, A::NAME);
    let (want, got) = (forward(Rig::new(), g, true), forward(first, g, true));
    close(&name("z"), &got.z, &want.z, stored::<A>());
    for (what, (got, want)) in
        ["saved", "running mean", "running var"].into_iter().zip(got.stats.iter().zip(&want.stats))
    {
        close(&name(what), got, want, TOL);
    }
    let (argmax, want_argmax) = (got.argmax.unwrap(), want.argmax.unwrap());
    // Where every tap is cut off by the ReLU any of them will do: no gradient passes.
    let differs = |i: &usize| argmax[*i] > 8 || (want.z[*i] > TOL && argmax[*i] != want_argmax[*i]);
    let off = (0..want.z.len()).find(differs);
    assert!(off.is_none(), "{}: element {off:?}", name("argmax"));
    let without = forward(second, g, false);
    assert_eq!((without.z, without.stats), (got.z, got.stats), "{}", name("z without argmax"));

    let (want_dx, want_sums) = backward(Rig::new(), g, &want_argmax, &want.stats[0]);
    let (dx, sums) = backward(third, g, &want_argmax, &want.stats[0]);
    close(&name("dx"), &dx, &want_dx, stored::<A>());
    close(&name("dgamma"), &sums[0], &want_sums[0], TOL);
    close(&name("dbeta"), &sums[1], &want_sums[1], TOL);
    // A selection: nothing rounds.
    assert_eq!(infer(fourth, g.spec, &g.x), infer(Rig::new(), g.spec, &g.x), "{}", name("infer"));
    true
}

fn edges<A: Activation>() {
    // Odd and even sides, single rows and columns; q below, at and above the windows that a block
    // holds at once (128 of 8 channels, 16 of 64, 4 of 256 and more); tiles of channels that are
    // not full.
    let mut specs = Vec::new();
    for (i, (h, w)) in (1..=5).flat_map(|h| (1..=5).map(move |w| (h, w))).enumerate() {
        let groups = 1 + i % 3;
        // Fewer than three rows a group have no gradient.
        specs.push(StemSpec { groups, n: groups * (1 + 3 / (h * w)), h, w, c: [8, 24, 64][i % 3] });
    }
    for (i, (w, c)) in
        [(255, 8), (258, 8), (31, 64), (32, 64), (35, 64), (6, 256), (8, 264), (9, 264)]
            .into_iter()
            .enumerate()
    {
        let groups = 1 + i % 3;
        specs.push(StemSpec { groups, n: groups * 2, h: 3 + i % 2, w, c });
    }
    // Chunks of several rows of windows, that end within an image and in another.
    specs.push(StemSpec { groups: 3, n: 9, h: 310, w: 3, c: 264 });
    for (i, &spec) in specs.iter().enumerate() {
        if !compare::<A>(&Given::new::<A>(spec, i as u64)) {
            return;
        }
    }
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

#[test]
fn the_first_of_equal_maxima_takes_the_gradient() {
    let spec = StemSpec { groups: 1, n: 1, h: 4, w: 4, c: 8 };
    let map = [1., 1., 0., 0., 1., 1., 0., 0., 0., 0., 1., 1., 0., 0., 1., 1.];
    let x: Vec<f32> = map.iter().flat_map(|&v| [v; 8]).collect();
    let dz: Vec<f32> = [1.0, 2.0, 4.0, 8.0].iter().flat_map(|&v| [v; 8]).collect();
    let params = [[1.0f32; 8], [0.5; 8], [0.0; 8], [1.0; 8]].map(|v| v.to_vec());
    let given = Given { spec, x, dz, params };
    let Some(rig) = Rig::cuda::<f32>() else { return };
    // Window (p, q) starts at row 2p − 1, column 2q − 1; tap 4 is its centre.
    let want: Vec<u8> = [4, 3, 1, 0].iter().flat_map(|&tap| [tap; 8]).collect();
    assert_eq!(forward(rig, &given, true).argmax.unwrap(), want);
    compare::<f32>(&given);
    compare::<bf16>(&given);
    compare::<f16>(&given);
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    let cuda = || Rig::cuda::<f32>().unwrap();
    let Some(rig) = Rig::cuda::<f32>() else { return };
    let given = Given::new::<f32>(StemSpec { groups: 2, n: 4, h: 5, w: 4, c: 8 }, 13);
    let kept = forward(rig, &given, true);
    let (dx, [dgamma, dbeta]) = backward(cuda(), &given, &kept.argmax.unwrap(), &kept.stats[0]);
    // step²·f''' and f32 in z over the step stay below 1e-3. NOTE: a maximum or a ReLU that changes
    // hands within the step adds 1e-2 and more: few do at this one.
    let check = |name: &str, x: &[f32], grad: &[f32], f: &dyn Fn(&mut Given, Vec<f32>)| {
        finite_difference(name, x, grad, 20, 0.001, 0.01, |x| {
            let mut moved = given.clone();
            f(&mut moved, x.to_vec());
            dot(&forward(cuda(), &moved, false).z, &given.dz)
        });
    };
    let added = |sums: &[f32], seed| -> Vec<f32> {
        sums.iter().zip(signed(seed, 8)).map(|(s, b)| s - b).collect()
    };
    check("dx", &given.x, &dx, &|g, x| g.x = x);
    check("dgamma", &given.params[0], &added(&dgamma, 6), &|g, x| g.params[0] = x);
    check("dbeta", &given.params[1], &added(&dbeta, 7), &|g, x| g.params[1] = x);
}

#[test]
fn plans_and_doors_refuse() {
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let s = StemSpec { groups: 2, n: 2, h: 5, w: 4, c: 8 };
    let refused =
        |plan: Result<_, Error>| assert!(matches!(plan.map(|_| ()), Err(Error::Input { .. })));
    refused(rig.dev.plan_stem(StemSpec { c: 12, ..s }));
    refused(rig.dev.plan_stem(StemSpec { n: 1 << 16, h: 1, w: 1, ..s }));
    refused(rig.dev.plan_stem(StemSpec { h: 1 << 20, w: 1 << 20, ..s }));
    let plan = rig.dev.plan_stem(s).unwrap();
    let params = slots(&mut rig, &params(1, 8));
    let [x, dx] = [0; 2].map(|_| rig.zeros::<f32>(s.x_len()));
    let (z, argmax, saved) =
        (rig.zeros::<f32>(s.z_len()), rig.zeros::<u8>(s.z_len()), rig.zeros(s.saved_len()));
    let (dgamma, dbeta, short, bytes) =
        (rig.zeros(8), rig.zeros(8), rig.zeros(7), rig.zeros::<u8>(7));
    rig.ready();
    let refused = [
        rig.dev.stem_forward(&plan, short, None, saved, x, params),
        rig.dev.stem_forward(&plan, z, Some(bytes), saved, x, params),
        rig.dev.stem_infer(&plan, z, short),
        rig.dev.stem_backward(&plan, short, dgamma, dbeta, z, argmax, x, saved, params),
        rig.dev.stem_backward(&plan, dx, dgamma, short, z, argmax, x, saved, params),
        rig.dev.stem_backward(&plan, dx, dgamma, dbeta, z, bytes, x, saved, params),
    ];
    for (i, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Shape { got: 7, .. })), "call {i}: {result:?}");
    }
}
