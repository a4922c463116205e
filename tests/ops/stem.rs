//! Batch norm + ReLU + max-pool: PyTorch's numbers, plain loops at every tile edge, finite
//! differences, threads.

use picie::base::Error;
use picie::device::ops::{NormParams, NormSpec, Stem, StemSpec};

use super::norm::{Params, plain_backward, plain_forward, spread};
use crate::util::{
    Rig, close, dot, finite_difference, golden, plus, same_bits_on_any_threads, signed, to_f32,
    uniform,
};

/// As for norm: f32 sums over a group's pixels and one rounding of mean and 1/σ each.
const TOL: f32 = 1e-5;

#[derive(Clone)]
struct Given {
    spec: StemSpec,
    x: Vec<f32>,
    dz: Vec<f32>,
    params: Params,
}

impl Given {
    fn new(spec: StemSpec, seed: u64) -> Self {
        let draw = |t, len| uniform(seed, t, len, -1.0, 1.0);
        Given {
            spec,
            x: draw(0, spec.x_len()),
            dz: draw(1, spec.z_len()),
            params: Params::new(seed, 2, spec.c),
        }
    }
}

#[derive(Clone)]
struct Forward {
    z: Vec<f32>,
    argmax: Vec<u8>,
    saved: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
}

struct Backward {
    dx: Vec<f32>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
}

fn forward(g: &Given) -> Forward {
    let (s, mut rig) = (g.spec, Rig::new());
    let plan = rig.dev.plan_stem(s).unwrap();
    let (x, params) = (rig.input(&g.x), g.params.input(&mut rig));
    let (z, argmax, saved) =
        (rig.output(s.z_len()), rig.output(s.z_len()), rig.output(s.saved_len()));
    rig.ready();
    rig.dev.stem_forward(&plan, z, Some(argmax), saved, x, params).unwrap();
    Forward {
        z: rig.read(z),
        argmax: rig.read(argmax),
        saved: rig.read(saved),
        mean: rig.read(params.running_mean),
        var: rig.read(params.running_var),
    }
}

/// `dgamma` and `dbeta` begin with these.
fn before(c: usize) -> [Vec<f32>; 2] {
    [signed(6, c), signed(7, c)]
}

/// The backward alone: what the forward kept comes from elsewhere.
fn backward(g: &Given, kept: &Forward) -> Backward {
    let (s, mut rig) = (g.spec, Rig::new());
    let plan = rig.dev.plan_stem(s).unwrap();
    let (x, dz, saved, argmax) =
        (rig.input(&g.x), rig.input(&g.dz), rig.input(&kept.saved), rig.input(&kept.argmax));
    let params = g.params.input(&mut rig);
    let [dgamma, dbeta] = before(s.c).map(|v| rig.input(&v));
    let dx = rig.output(s.x_len());
    rig.ready();
    rig.dev.stem_backward(&plan, dx, dgamma, dbeta, dz, argmax, x, saved, params).unwrap();
    Backward { dx: rig.read(dx), dgamma: rig.read(dgamma), dbeta: rig.read(dbeta) }
}

fn infer(s: StemSpec, x: &[f32]) -> Vec<f32> {
    let mut rig = Rig::new();
    let plan = rig.dev.plan_stem(s).unwrap();
    let (x, z) = (rig.input(x), rig.output(s.z_len()));
    rig.ready();
    rig.dev.stem_infer(&plan, z, x).unwrap();
    rig.read(z)
}

fn norm_of(s: StemSpec) -> NormSpec {
    NormSpec { groups: s.groups, rows: s.n / s.groups * s.h * s.w, c: s.c }
}

/// For each element of z: the place in x of the window's tap 0..9, or None outside of the map.
fn taps(s: StemSpec) -> impl Iterator<Item = [Option<usize>; 9]> {
    (0..s.z_len()).map(move |i| {
        let (c, q, p, n) =
            (i % s.c, i / s.c % s.q(), i / s.c / s.q() % s.p(), i / s.c / s.q() / s.p());
        std::array::from_fn(|tap| {
            let row = (2 * p + tap / 3).checked_sub(1).filter(|&v| v < s.h)?;
            let column = (2 * q + tap % 3).checked_sub(1).filter(|&v| v < s.w)?;
            Some(((n * s.h + row) * s.w + column) * s.c + c)
        })
    })
}

/// maxpool(relu(y)) and the tap of the first maximum.
fn plain_pool(s: StemSpec, y: &[f64]) -> (Vec<f64>, Vec<u8>) {
    let window = |taps: [Option<usize>; 9]| {
        let mut best = (f64::NEG_INFINITY, 0);
        for (tap, at) in taps.into_iter().enumerate() {
            if let Some(value) = at.map(|at| y[at].max(0.0)).filter(|&v| v > best.0) {
                best = (value, tap as u8);
            }
        }
        best
    };
    taps(s).map(window).unzip()
}

fn plain(g: &Given) -> (Forward, Backward) {
    let (s, norm) = (g.spec, norm_of(g.spec));
    let f = plain_forward(norm, &g.x, &g.params);
    let (z, argmax) = plain_pool(s, &f.y);
    let mut dy = vec![0.0; s.x_len()];
    for (i, taps) in taps(s).enumerate().filter(|&(i, _)| z[i] > 0.0) {
        dy[taps[argmax[i] as usize].unwrap()] += f64::from(g.dz[i]);
    }
    let [dx, dgamma, dbeta] = plain_backward(norm, &g.x, &dy, &f.saved, &g.params.gamma);
    let [dgamma0, dbeta0] = before(s.c);
    let back = Backward {
        dx: to_f32(&dx),
        dgamma: plus(&dgamma0, &to_f32(&dgamma)),
        dbeta: plus(&dbeta0, &to_f32(&dbeta)),
    };
    (
        Forward {
            z: to_f32(&z),
            argmax,
            saved: to_f32(&f.saved),
            mean: to_f32(&f.mean),
            var: to_f32(&f.var),
        },
        back,
    )
}

#[track_caller]
fn compare(g: &Given, (want, want_back): (Forward, Backward)) {
    let name = |what: &str| format!("{what} of {:?}", g.spec);
    let got = forward(g);
    close(&name("z"), &got.z, &want.z, TOL);
    close(&name("saved"), &got.saved, &want.saved, TOL);
    close(&name("running mean"), &got.mean, &want.mean, TOL);
    close(&name("running var"), &got.var, &want.var, TOL);
    // Where every tap is cut off by the ReLU any of them will do: no gradient passes.
    let differs =
        |i: &usize| got.argmax[*i] > 8 || (want.z[*i] > 0.0 && got.argmax[*i] != want.argmax[*i]);
    let off = (0..want.z.len()).find(differs);
    assert!(off.is_none(), "{}: element {off:?}", name("argmax"));
    // The engine's own, then the definition's: both must lead to the same gradients.
    for kept in [&got, &want] {
        let back = backward(g, kept);
        close(&name("dx"), &back.dx, &want_back.dx, TOL);
        close(&name("dgamma"), &back.dgamma, &want_back.dgamma, TOL);
        close(&name("dbeta"), &back.dbeta, &want_back.dbeta, TOL);
    }
}

#[test]
fn forward_and_gradients_are_pytorchs() {
    let golden = golden("stem");
    let mut cases = 0;
    while let Some(s) = golden.get(&format!("{cases}.spec")) {
        let get = |name: &str| golden[&format!("{cases}.{name}")].clone();
        let s: Vec<usize> = s.iter().map(|&v| v as usize).collect();
        let given =
            Given::new(StemSpec { groups: s[0], n: s[1], h: s[2], w: s[3], c: s[4] }, cases);
        let argmax = get("argmax").iter().map(|&v| v as u8).collect();
        let [dgamma, dbeta] = before(s[4]);
        let back = Backward {
            dx: get("dx"),
            dgamma: plus(&dgamma, &get("dgamma")),
            dbeta: plus(&dbeta, &get("dbeta")),
        };
        let (saved, mean, var) = (get("saved"), get("mean"), get("var"));
        compare(&given, (Forward { z: get("z"), argmax, saved, mean, var }, back));
        // A selection: nothing rounds.
        assert_eq!(infer(given.spec, &given.x), get("infer"), "infer of {:?}", given.spec);
        cases += 1;
    }
    assert!(cases >= 4, "the golden file lost its cases");
}

#[test]
fn every_size_agrees_with_plain_loops() {
    let channels = [1, 3, 4, 15, 16, 17, 31, 32, 33, 64];
    let sides =
        (1..=9).flat_map(|h| (1..=9).map(move |w| (h, w))).chain([(15, 16), (16, 17), (17, 15)]);
    for (i, (h, w)) in sides.enumerate() {
        let groups = 1 + i % 3;
        // Fewer than three rows a group have no gradient.
        let n = groups * if h * w < 3 { 3 } else { 1 + (h + w) % 2 };
        let mut given = Given::new(StemSpec { groups, n, h, w, c: channels[i % 10] }, i as u64);
        if h * w < 9 {
            spread(&mut given.x, given.spec.c);
        }
        compare(&given, plain(&given));
        let pooled =
            plain_pool(given.spec, &given.x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).0;
        assert_eq!(infer(given.spec, &given.x), to_f32(&pooled), "infer of {:?}", given.spec);
    }
}

#[test]
fn the_first_of_equal_maxima_takes_the_gradient() {
    let spec = StemSpec { groups: 1, n: 1, h: 4, w: 4, c: 1 };
    let x = [1., 1., 0., 0., 1., 1., 0., 0., 0., 0., 1., 1., 0., 0., 1., 1.].to_vec();
    let params = Params { gamma: vec![1.0], beta: vec![0.5], mean: vec![0.0], var: vec![1.0] };
    let given = Given { spec, x, dz: vec![1.0, 2.0, 4.0, 8.0], params };
    // Window (p, q) starts at row 2p − 1, column 2q − 1; tap 4 is its centre.
    assert_eq!(forward(&given).argmax, [4, 3, 1, 0]);
    compare(&given, plain(&given));
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    let given = Given::new(StemSpec { groups: 2, n: 4, h: 5, w: 4, c: 3 }, 12);
    let grads = backward(&given, &forward(&given));
    let loss = |g: Given| dot(&forward(&g).z, &g.dz);
    // step²·f''' and f32 in z over the step stay below 1e-4; a maximum or a ReLU that changes hands
    // within the step adds more.
    let check = |name: &str, x: &[f32], grad: &[f32], f: &dyn Fn(&[f32]) -> Given| {
        finite_difference(name, x, grad, 20, 0.003, 0.01, |x| loss(f(x)));
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
}

#[test]
fn results_do_not_depend_on_threads() {
    for (groups, n, h, w, c) in [(2, 4, 17, 13, 20), (1, 3, 9, 33, 5)] {
        let given = Given::new(StemSpec { groups, n, h, w, c }, 9);
        same_bits_on_any_threads(&format!("{:?}", given.spec), || {
            let f = forward(&given);
            let b = backward(&given, &f);
            let argmax = f.argmax.iter().map(|&v| f32::from(v)).collect();
            [
                f.z,
                argmax,
                f.saved,
                f.mean,
                f.var,
                b.dx,
                b.dgamma,
                b.dbeta,
                infer(given.spec, &given.x),
            ]
            .concat()
        });
    }
}

#[test]
fn the_forward_without_argmax_is_the_same() {
    let given = Given::new(StemSpec { groups: 2, n: 4, h: 5, w: 7, c: 6 }, 3);
    let (s, mut rig) = (given.spec, Rig::new());
    let plan = rig.dev.plan_stem(s).unwrap();
    let (x, params) = (rig.input(&given.x), given.params.input(&mut rig));
    let (z, saved) = (rig.output::<f32>(s.z_len()), rig.output(s.saved_len()));
    rig.ready();
    rig.dev.stem_forward(&plan, z, None, saved, x, params).unwrap();
    let want = forward(&given);
    assert_eq!((rig.read(z), rig.read(saved)), (want.z, want.saved));
    assert_eq!(
        (rig.read(params.running_mean), rig.read(params.running_var)),
        (want.mean, want.var)
    );
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let (s, mut rig) = (StemSpec { groups: 2, n: 2, h: 5, w: 4, c: 6 }, Rig::new());
    let plan = rig.dev.plan_stem(s).unwrap();
    let params = Params::new(1, 2, 6).input(&mut rig);
    let (x, dx) = (rig.zeros::<f32>(s.x_len()), rig.zeros(s.x_len()));
    let (z, saved, argmax) =
        (rig.zeros::<f32>(s.z_len()), rig.zeros(s.saved_len()), rig.zeros::<u8>(s.z_len()));
    let (dgamma, dbeta) = (rig.zeros(6), rig.zeros(6));
    let (short, bytes) = (rig.zeros(5), rig.zeros::<u8>(5));
    rig.ready();
    let dev = &mut rig.dev;
    let refused = [
        dev.stem_forward(&plan, short, None, saved, x, params),
        dev.stem_forward(&plan, z, Some(bytes), saved, x, params),
        dev.stem_forward(&plan, z, None, short, x, params),
        dev.stem_forward(&plan, z, None, saved, short, params),
        dev.stem_forward(&plan, z, None, saved, x, NormParams { beta: short, ..params }),
        dev.stem_infer(&plan, short, x),
        dev.stem_infer(&plan, z, short),
        dev.stem_backward(&plan, short, dgamma, dbeta, z, argmax, x, saved, params),
        dev.stem_backward(&plan, dx, short, dbeta, z, argmax, x, saved, params),
        dev.stem_backward(&plan, dx, dgamma, short, z, argmax, x, saved, params),
        dev.stem_backward(&plan, dx, dgamma, dbeta, short, argmax, x, saved, params),
        dev.stem_backward(&plan, dx, dgamma, dbeta, z, bytes, x, saved, params),
        dev.stem_backward(&plan, dx, dgamma, dbeta, z, argmax, short, saved, params),
        dev.stem_backward(&plan, dx, dgamma, dbeta, z, argmax, x, short, params),
        dev.stem_backward(
            &plan,
            dx,
            dgamma,
            dbeta,
            z,
            argmax,
            x,
            saved,
            NormParams { gamma: short, ..params },
        ),
    ];
    for (i, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Shape { got: 5, .. })), "call {i}: {result:?}");
    }
}
