//! Batch norm + ReLU + max-pool: PyTorch's numbers, plain loops, CUDA against the CPU, each at its
//! edges of windows, tiles and chunks; ties, finite differences, threads.

use picie::base::Error;
use picie::device::Dtype;
use picie::device::ops::{
    NormSpec, StemBackward, StemForward, StemInfer, StemMaxima, StemSpec, plan_stem, stem_backward,
    stem_forward, stem_infer,
};

use super::norm::{Params, kept, plain_backward, plain_forward, spread, tolerance};
use crate::util::{EXACT, On, OpCase, Results, Rig, Steps, added, golden_cases, to_f32, uniform};

/// The place of a maximum that is zero.
const CLOSED: u8 = 9;

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

    /// With pixels that stand apart.
    fn spread(spec: StemSpec, seed: u64) -> Self {
        let mut given = Given::new(spec, seed);
        spread(&mut given.x, spec.c);
        given
    }

    fn named(&self, op: &str) -> String {
        format!("{op} of {:?}", self.spec)
    }

    /// `keep`: for a backward.
    fn forward(&self, keep: bool) -> OpCase<'_> {
        OpCase::new(self.named("stem_forward"), move |rig| {
            let plan = plan_stem(&mut *rig.dev, self.spec).unwrap();
            let len = self.spec.z_len();
            let a = StemForward {
                z: rig.act_output("z", len),
                maxima: keep.then(|| StemMaxima {
                    argmax: rig.output("argmax", len),
                    peak: rig.act_output("peak", len),
                }),
                saved: rig.output("saved", self.spec.saved_len()),
                x: rig.acts("x", &self.x),
                params: self.params.moved(rig),
            };
            move |dev| stem_forward(dev, &plan, a)
        })
    }

    /// The backward alone: what the forward kept may come from elsewhere.
    fn backward<'a>(&'a self, kept: &'a Results) -> OpCase<'a> {
        OpCase::new(self.named("stem_backward"), |rig| {
            let plan = plan_stem(&mut *rig.dev, self.spec).unwrap();
            let argmax: Vec<u8> = kept.integers("argmax").iter().map(|&tap| tap as u8).collect();
            let a = StemBackward {
                dx: rig.act_output("dx", self.spec.x_len()),
                dgamma: rig.adds("dgamma", self.spec.c),
                dbeta: rig.adds("dbeta", self.spec.c),
                dz: rig.acts("dz", &self.dz),
                maxima: StemMaxima {
                    argmax: rig.input("argmax", &argmax),
                    peak: rig.acts("peak", &kept["peak"]),
                },
                x: rig.acts("x", &self.x),
                saved: rig.input("saved", &kept["saved"]),
                params: self.params.read(rig),
            };
            move |dev| stem_backward(dev, &plan, a)
        })
    }

    fn infer(&self) -> OpCase<'_> {
        OpCase::new(self.named("stem_infer"), |rig| {
            let plan = plan_stem(&mut *rig.dev, self.spec).unwrap();
            let z = rig.act_output("z", self.spec.z_len());
            let a = StemInfer { z, x: rig.acts("x", &self.x) };
            move |dev| stem_infer(dev, &plan, a)
        })
    }

    /// What all three leave, by plain loops.
    fn plain(&self) -> [Results; 3] {
        let s = self.spec;
        let norm = NormSpec { groups: s.groups, rows: s.n / s.groups * s.h * s.w, c: s.c };
        let f = plain_forward(norm, &self.x, &self.params);
        let (z, argmax) = plain_pool(s, &f.y);
        let mut dy = vec![0.0; s.x_len()];
        for (i, taps) in taps(s).enumerate().filter(|&(i, _)| z[i] > 0.0) {
            dy[taps[argmax[i] as usize].unwrap()] += f64::from(self.dz[i]);
        }
        let grads = plain_backward(norm, &self.x, &dy, &f.saved, &self.params.gamma);
        let mut forward = kept(to_f32(&z), f);
        self.keep(&mut forward, &argmax);
        let wide: Vec<f64> = self.x.iter().map(|&x| f64::from(x)).collect();
        [forward, gradients(grads), Results::of([("z", plain_pool(s, &wide).0.into())])]
    }

    /// Puts what a forward keeps of its windows to a reference, which has the places of all maxima.
    fn keep(&self, forward: &mut Results, argmax: &[u8]) {
        let first = |taps: &[Option<usize>; 9]| taps.iter().flatten().next().copied();
        let (mut names, mut peak) = (Vec::new(), Vec::new());
        for (i, taps) in taps(self.spec).enumerate() {
            let open = forward["z"][i] > 0.0;
            names.push(if open { argmax[i] } else { CLOSED });
            let at = if open { taps[argmax[i] as usize] } else { first(&taps) };
            peak.push(self.x[at.unwrap()]);
        }
        forward.put("argmax", names.into());
        forward.put("peak", peak.into());
    }

    /// The CPU against a reference.
    #[track_caller]
    fn compare(&self, [forward, backward, infer]: [Results; 3]) {
        let got = self.forward(true).cpu();
        same_forward(&got, &forward, Dtype::F32);
        // The engine's own, then the definition's: both must lead to the same gradients.
        for kept in [&got, &forward] {
            self.backward(kept).cpu().close(&backward, tolerance(Dtype::F32));
        }
        // A selection: nothing rounds.
        self.infer().cpu().close(&infer, |_| EXACT);
    }

    /// CUDA against the CPU; the backward from what the CPU kept.
    #[track_caller]
    fn agree(&self, dtype: Dtype) {
        let Some([got, want]) = self.forward(true).both(dtype) else { return };
        same_forward(&got, &want, dtype);
        self.backward(&want).agree(dtype, tolerance(dtype));
        self.infer().agree(dtype, |_| EXACT);
        let mut kept = got;
        kept.take("argmax");
        kept.take("peak");
        self.forward(false).run(Rig::cuda(dtype).unwrap()).close(&kept, |_| EXACT);
    }
}

/// Of a reference, which knows nothing of what dgamma and dbeta begin with.
fn gradients([dx, dgamma, dbeta]: [Vec<f32>; 3]) -> Results {
    Results::of([
        ("dx", dx.into()),
        ("dgamma", added(&dgamma).into()),
        ("dbeta", added(&dbeta).into()),
    ])
}

#[track_caller]
fn same_forward(got: &Results, want: &Results, dtype: Dtype) {
    // Where rounding decides whether a window is open, one may say so and the other not.
    let open = |i: usize| want["z"][i] > tolerance(Dtype::F32)("z");
    let sure = |i: usize| open(i) || want["z"][i] == 0.0 && got["z"][i] == 0.0;
    let taps = got.integers("argmax").iter().zip(want.integers("argmax")).enumerate();
    let off = { taps }.find(|&(i, (&got, &want))| got > 9 || (sure(i) && got != want));
    assert!(off.is_none(), "{:?}: argmax: {off:?}", got.case());
    // A selection: nothing rounds but what is given.
    let peaks = got["peak"].iter().zip(&want["peak"]).enumerate();
    let off = { peaks }.find(|&(i, (&got, &want))| open(i) && got != dtype.round(want));
    assert!(off.is_none(), "{:?}: peak: {off:?}", got.case());
    let [mut got, mut want] = [got.clone(), want.clone()];
    for results in [&mut got, &mut want] {
        results.take("argmax");
        results.take("peak");
    }
    got.close(&want, tolerance(dtype));
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

#[test]
fn forward_and_gradients_are_pytorchs() {
    let cases = golden_cases("stem");
    assert!(cases.len() >= 4, "the golden file lost its cases");
    for (seed, s, g) in cases {
        let spec = StemSpec { groups: s[0], n: s[1], h: s[2], w: s[3], c: s[4] };
        let get = |name: &str| g[name].clone();
        let given = Given::new(spec, seed);
        let mut forward = Results::of([
            ("z", get("z").into()),
            ("saved", get("saved").into()),
            ("running_mean", get("mean").into()),
            ("running_var", get("var").into()),
        ]);
        given.keep(&mut forward, &Vec::from_iter(get("argmax").iter().map(|&tap| tap as u8)));
        let back = gradients(["dx", "dgamma", "dbeta"].map(get));
        let infer = Results::of([("z", get("infer").into())]);
        given.compare([forward, back, infer]);
    }
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
        let spec = StemSpec { groups, n, h, w, c: channels[i % 10] };
        let new = if h * w < 9 { Given::spread } else { Given::new };
        let given = new(spec, i as u64);
        given.compare(given.plain());
    }
}

#[test]
fn every_size_agrees_with_the_cpu() {
    // Odd and even sides, single rows and columns; q below, at and above the windows that a block
    // holds at once (128 of 8 channels, 16 of 64, 4 of 256 and more); tiles of channels that are
    // not full.
    let mut specs = Vec::new();
    for (i, (h, w)) in (1..=5).flat_map(|h| (1..=5).map(move |w| (h, w))).enumerate() {
        let groups = 1 + i % 3;
        // Fewer than three rows a group have no gradient.
        specs.push(StemSpec { groups, n: groups * (1 + 3 / (h * w)), h, w, c: [8, 24, 64][i % 3] });
    }
    let wide = [(255, 8), (258, 8), (31, 64), (32, 64), (35, 64), (6, 256), (8, 264), (9, 264)];
    for (i, (w, c)) in wide.into_iter().enumerate() {
        let groups = 1 + i % 3;
        specs.push(StemSpec { groups, n: groups * 2, h: 3 + i % 2, w, c });
    }
    // Many strips of windows, the last one not full.
    specs.push(StemSpec { groups: 3, n: 9, h: 310, w: 3, c: 264 });
    for dtype in Dtype::ALL {
        for (i, &spec) in specs.iter().enumerate() {
            Given::spread(spec, i as u64).agree(dtype);
        }
    }
}

#[test]
fn the_first_of_equal_maxima_takes_the_gradient() {
    let map = [1., 1., 0., 0., 1., 1., 0., 0., 0., 0., 1., 1., 0., 0., 1., 1.];
    // Window (p, q) starts at row 2p − 1, column 2q − 1; tap 4 is its centre.
    let taps = [4, 3, 1, 0];
    for c in [1, 8] {
        let each = |values: &[f32]| values.iter().flat_map(|&v| vec![v; c]).collect::<Vec<_>>();
        let [gamma, beta, mean, var] = [1.0, 0.5, 0.0, 1.0].map(|v| vec![v; c]);
        let given = Given {
            spec: StemSpec { groups: 1, n: 1, h: 4, w: 4, c },
            x: each(&map),
            dz: each(&[1.0, 2.0, 4.0, 8.0]),
            params: Params { gamma, beta, mean, var },
        };
        let want: Vec<u32> = taps.iter().flat_map(|&tap| vec![tap; c]).collect();
        assert_eq!(given.forward(true).cpu().integers("argmax"), want);
        given.compare(given.plain());
        if let (8, Some(rig)) = (c, Rig::cuda(Dtype::F32)) {
            assert_eq!(given.forward(true).run(rig).integers("argmax"), want);
            Dtype::ALL.into_iter().for_each(|dtype| given.agree(dtype));
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    let given = Given::spread(StemSpec { groups: 2, n: 4, h: 5, w: 4, c: 8 }, 13);
    for on in On::all() {
        let kept = given.forward(true).run(on.rig());
        let back = given.backward(&kept).run(on.rig());
        let gradients = [
            ("x", back["dx"].clone()),
            ("gamma", back.bare("dgamma")),
            ("beta", back.bare("dbeta")),
        ];
        // step²·f''' and f32 in z over the step stay below 1e-3. NOTE: a maximum or a ReLU that
        // changes hands within the step adds 1e-2 and more: few do at this one.
        let steps = Steps { picks: 20, step: 0.001, tol: 0.01 };
        given.forward(false).slopes(on, ("z", &given.dz), &gradients, steps);
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    for (groups, n, h, w, c) in [(2, 4, 17, 13, 20), (1, 3, 9, 33, 5)] {
        let given = Given::new(StemSpec { groups, n, h, w, c }, 9);
        given.forward(true).same_bits_on_any_threads();
        given.backward(&given.forward(true).cpu()).same_bits_on_any_threads();
        given.infer().same_bits_on_any_threads();
    }
}

#[test]
fn the_forward_that_keeps_nothing_is_the_same() {
    let given = Given::new(StemSpec { groups: 2, n: 4, h: 5, w: 7, c: 6 }, 3);
    let mut want = given.forward(true).cpu();
    want.take("argmax");
    want.take("peak");
    given.forward(false).cpu().close(&want, |_| EXACT);
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let given = Given::new(StemSpec { groups: 2, n: 2, h: 5, w: 4, c: 6 }, 1);
    given.forward(true).refuses_other_sizes("stem_forward", &[]);
    given.backward(&given.forward(true).cpu()).refuses_other_sizes("stem_backward", &[]);
    given.infer().refuses_other_sizes("stem_infer", &[]);
}

#[test]
fn cuda_refuses_what_it_cannot_run() {
    let Some(mut rig) = Rig::cuda(Dtype::F32) else { return };
    let s = StemSpec { groups: 2, n: 2, h: 5, w: 4, c: 8 };
    for bad in [
        StemSpec { c: 12, ..s },
        StemSpec { n: 1 << 16, h: 1, w: 1, ..s },
        StemSpec { h: 1 << 20, w: 1 << 20, ..s },
    ] {
        let refused = plan_stem(&mut *rig.dev, bad);
        assert!(matches!(refused, Err(Error::Input { .. })), "{refused:?}");
    }
}
