//! Batch norm + residual + ReLU: PyTorch's numbers, plain loops, CUDA against the CPU, each at its
//! tile edges; finite differences, threads.

mod fold;
mod plain;
mod two;

use picie::base::Error;
use picie::device::Dtype;
use picie::device::ops::{
    NormBackward, NormForward, NormGate, NormSpec, Residual, ResidualGrad, norm_backward,
    norm_forward, plan_norm,
};

use crate::util::{
    EXACT, On, OpCase, Results, Rig, Steps, added, close, equal, golden_cases, rounding, signed,
    to_f32, uniform,
};

pub use plain::{Params, kept, plain_backward, plain_forward, spread};

/// Of the largest element. f32 sums of up to 5000 rows, in pieces, and one rounding of mean and 1/σ
/// each.
const TOL: f32 = 1e-5;

/// The same for all that is f32 inside; activations are rounded as they are stored; the gradient of
/// the residual is copied or zero, never computed.
pub(super) fn tolerance(dtype: Dtype) -> impl Fn(&str) -> f32 {
    move |what| match what {
        "z" | "dx" | "folded" | "bias" => rounding(dtype) + TOL,
        "dresidual" => EXACT,
        _ => TOL,
    }
}

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

    /// With rows that stand apart.
    fn spread(spec: NormSpec, residual: bool, relu: bool, seed: u64) -> Self {
        let mut given = Given::new(spec, residual, relu, seed);
        spread(&mut given.x, spec.c);
        given
    }

    fn named(&self, op: &str) -> String {
        let (residual, relu) = (self.residual.is_some(), self.relu);
        format!("{op} of {:?}, residual {residual}, relu {relu}", self.spec)
    }

    /// Whether a mask tells the backward where the ReLU opens.
    fn masked(&self) -> bool {
        self.relu && self.residual.is_some()
    }

    fn forward(&self) -> OpCase<'_> {
        OpCase::new(self.named("norm_forward"), |rig| {
            let plan = plan_norm(&mut *rig.dev, self.spec).unwrap();
            let a = NormForward {
                z: rig.act_output("z", self.spec.len()),
                mask: self.masked().then(|| rig.output("mask", self.spec.mask_len())),
                saved: rig.output("saved", self.spec.saved_len()),
                x: rig.acts("x", &self.x),
                residual: self.residual.as_ref().map(|r| Residual::Map(rig.acts("residual", r))),
                relu: self.relu,
                params: self.params.moved(rig),
            };
            move |dev| norm_forward(dev, &plan, a)
        })
    }

    /// The backward alone: the mask and `saved` are those that a forward, of whomever, left.
    fn backward<'a>(&'a self, kept: &'a Results) -> OpCase<'a> {
        OpCase::new(self.named("norm_backward"), |rig| {
            let len = self.spec.len();
            let dresidual = self.residual.as_ref().map(|_| rig.act_output("dresidual", len));
            let plan = plan_norm(&mut *rig.dev, self.spec).unwrap();
            let a = NormBackward {
                dx: rig.act_output("dx", len),
                dresidual: dresidual.map(ResidualGrad::Map),
                dgamma: rig.adds("dgamma", self.spec.c),
                dbeta: rig.adds("dbeta", self.spec.c),
                dz: rig.acts("dz", &self.dz),
                gate: match (self.relu, self.residual.is_some()) {
                    (false, _) => NormGate::Open,
                    (true, false) => NormGate::Beta(rig.input("beta", &self.params.beta)),
                    (true, true) => NormGate::Mask(rig.input("mask", &bytes_of(kept))),
                },
                x: rig.acts("x", &self.x),
                saved: rig.input("saved", &kept["saved"]),
                gamma: rig.input("gamma", &self.params.gamma),
            };
            move |dev| norm_backward(dev, &plan, a)
        })
    }

    /// Both, by plain loops.
    fn plain(&self) -> [Results; 2] {
        let f = plain_forward(self.spec, &self.x, &self.params);
        let residual = |i: usize| self.residual.as_ref().map_or(0.0, |r| f64::from(r[i]));
        let z = f.y.iter().enumerate().map(|(i, &y)| y + residual(i));
        let z: Vec<f64> = z.map(|z| if self.relu { z.max(0.0) } else { z }).collect();
        let passed =
            |(i, &dz): (usize, &f32)| if self.relu && z[i] <= 0.0 { 0.0 } else { f64::from(dz) };
        let dy: Vec<f64> = self.dz.iter().enumerate().map(passed).collect();
        let grads = plain_backward(self.spec, &self.x, &dy, &f.saved, &self.params.gamma);
        let mut forward = kept(to_f32(&z), f);
        self.put_mask(&mut forward);
        [forward, self.gradients(grads, to_f32(&dy))]
    }

    /// Puts the mask to a reference, which has z.
    fn put_mask(&self, forward: &mut Results) {
        if self.masked() {
            forward.put("mask", mask_of(&forward["z"], self.spec.c).into());
        }
    }

    /// Of a reference, which knows nothing of what dgamma and dbeta begin with.
    fn gradients(&self, [dx, dgamma, dbeta]: [Vec<f32>; 3], dresidual: Vec<f32>) -> Results {
        let mut results = Results::of([
            ("dx", dx.into()),
            ("dgamma", added(&dgamma).into()),
            ("dbeta", added(&dbeta).into()),
        ]);
        if self.residual.is_some() {
            results.put("dresidual", dresidual.into());
        }
        results
    }

    /// The CPU against a reference.
    #[track_caller]
    fn compare(&self, [forward, backward]: [Results; 2]) {
        same_forward(&self.forward().cpu(), &forward, self.spec.c, Dtype::F32);
        self.backward(&forward).cpu().close(&backward, tolerance(Dtype::F32));
    }

    /// CUDA against the CPU; the backward from the same z or statistics, for where a ReLU opens
    /// differently is the forward's matter.
    #[track_caller]
    fn agree(&self, dtype: Dtype) {
        if let Some([got, kept]) = self.forward().both(dtype) {
            same_forward(&got, &kept, self.spec.c, dtype);
            self.backward(&kept).agree(dtype, tolerance(dtype));
        }
    }
}

/// The bits of where z (…, c) is above zero: of each pixel ⌈c/8⌉ bytes, channel 0 the lowest bit.
fn mask_of(z: &[f32], c: usize) -> Vec<u8> {
    let byte = |z: &[f32]| z.iter().rev().fold(0, |byte, z| byte << 1 | u8::from(*z > 0.0));
    z.chunks(c).flat_map(|pixel| pixel.chunks(8).map(byte)).collect()
}

/// The mask that a forward left.
fn bytes_of(kept: &Results) -> Vec<u8> {
    kept.integers("mask").iter().map(|&byte| byte as u8).collect()
}

/// A mask says what the z beside it does, whichever side of zero roundings put that on.
#[track_caller]
fn same_forward(got: &Results, want: &Results, c: usize, dtype: Dtype) {
    let [mut got, mut want] = [got.clone(), want.clone()];
    for results in [&mut got, &mut want].into_iter().filter(|results| results.has("mask")) {
        let mask = mask_of(&results["z"], c);
        equal(&format!("{}: mask", results.case()), &bytes_of(results), &mask);
        results.take("mask");
    }
    got.close(&want, tolerance(dtype));
}

#[test]
fn forward_and_gradients_are_pytorchs() {
    let cases = golden_cases("norm");
    assert!(cases.len() >= 8, "the golden file lost its cases");
    for (seed, s, g) in cases {
        let spec = NormSpec { groups: s[0], rows: s[1], c: s[2] };
        let given = Given::new(spec, s[3] == 1, s[4] == 1, seed);
        let get = |name: &str| g[name].clone();
        let mut forward = Results::of([
            ("z", get("z").into()),
            ("saved", get("saved").into()),
            ("running_mean", get("mean").into()),
            ("running_var", get("var").into()),
        ]);
        given.put_mask(&mut forward);
        let dresidual = g.get("dresidual").cloned().unwrap_or_default();
        given.compare([forward, given.gradients(["dx", "dgamma", "dbeta"].map(get), dresidual)]);
    }
}

#[test]
fn every_size_agrees_with_plain_loops() {
    // Two rows have no gradient (both are ±1 whatever x is), so three are the fewest.
    let (rows, channels) =
        ([3, 4, 7, 8, 9, 31, 33, 64, 257, 1000], [1, 3, 4, 15, 16, 17, 31, 32, 33, 64]);
    for (i, &rows) in rows.iter().enumerate() {
        for (j, &c) in channels.iter().enumerate() {
            let (spec, seed) = (NormSpec { groups: 1 + (i + j) % 3, rows, c }, 100 * i + j);
            let given = Given::spread(spec, i % 2 == 0, (i / 2 + j) % 2 == 0, seed as u64);
            given.compare(given.plain());
        }
    }
}

#[test]
fn every_size_agrees_with_the_cpu() {
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
    for dtype in Dtype::ALL {
        for (i, (c, rows)) in shapes.into_iter().enumerate() {
            for (j, rows) in rows.into_iter().enumerate() {
                let (spec, seed) = (NormSpec { groups: 1 + (i + j) % 3, rows, c }, 10 * i + j);
                Given::spread(spec, (i + j / 2) % 2 == 0, j % 2 == 0, seed as u64).agree(dtype);
            }
        }
        // More partials than the finalizing block has rows of threads.
        let many = NormSpec { groups: 1, rows: 32 * 150 + 1, c: 136 };
        Given::spread(many, true, true, 99).agree(dtype);
    }
}

#[test]
fn a_mean_far_from_zero_does_not_drown_the_variance() {
    let mut given = Given::new(NormSpec { groups: 2, rows: 500, c: 5 }, false, false, 1);
    given.x.iter_mut().for_each(|x| *x += 60.0);
    // A mean of 61 rounds to within 2e-6 of it, σ is 1.2; E[x²] − E[x]² in f32 would be off by 3e-4
    // and more.
    close("z", &given.forward().cpu()["z"], &given.plain()[0]["z"], 2e-5);

    // A mean of 1000 at σ = 1: E[x²] − E[x]² in f32 would leave no digit of the variance.
    for dtype in Dtype::ALL {
        let Some(rig) = Rig::cuda(dtype) else { return };
        let mut given = Given::new(NormSpec { groups: 2, rows: 500, c: 16 }, false, false, 1);
        let far = signed(3, given.spec.len()).into_iter().map(|x| dtype.round(1000.0 + x));
        given.x = far.collect();
        let (got, [want, _]) = (given.forward().run(rig), given.plain());
        let rows = got["saved"].iter().zip(&want["saved"]).enumerate();
        for (i, (&got, &want)) in rows {
            let (what, tol) = [("mean", 1e-7), ("1/σ", TOL)][i / 16 % 2];
            close(what, &[got], &[want], tol);
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    let forms = [(false, false), (false, true), (true, false), (true, true)];
    for (seed, (residual, relu)) in forms.into_iter().enumerate() {
        let spec = NormSpec { groups: 2, rows: 40, c: 8 };
        let given = Given::new(spec, residual, relu, seed as u64);
        for on in On::all() {
            let kept = given.forward().run(on.rig());
            let back = given.backward(&kept).run(on.rig());
            let mut gradients = vec![
                ("x", back["dx"].clone()),
                ("gamma", back.bare("dgamma")),
                ("beta", back.bare("dbeta")),
            ];
            if residual {
                gradients.push(("residual", back["dresidual"].clone()));
            }
            // step²·f''' and f32 in z over the step stay below 1e-3; a ReLU that opens within the
            // step adds its share.
            let steps = Steps { picks: 20, step: 0.002, tol: 0.01 };
            given.forward().slopes(on, ("z", &given.dz), &gradients, steps);
        }
    }
}

/// Where a ReLU is known by x, the gradient flows where the forward stored a z above zero: numbers
/// that are stored as zero, zero itself and NaN among them.
#[test]
fn a_relu_that_is_known_by_x_opens_where_z_is_above_zero() {
    let spec = NormSpec { groups: 2, rows: 8, c: 16 };
    let mut given = Given::new(spec, false, true, 5);
    // Halves of the smallest f16 and of the smallest bf16 lie among the outputs of the first.
    let gamma = [4e-8, -4e-8, 6e-41, -6e-41, 0.0, 1.0, -1.0, f32::NAN];
    given.params.gamma = gamma.repeat(2);
    given.params.beta = [[0.0; 8], [3e-8, 0.0, 0.0, 0.0, 1e-3, f32::NAN, 0.5, 0.0]].concat();
    given.x[7 * spec.c + 13] = f32::NAN;
    // Sums of these are as different as what they are sums of.
    given.dz = (0..spec.len()).map(|i| f32::exp2((i / spec.c) as f32)).collect();
    let cuda = Dtype::ALL.map(|dtype| (Rig::cuda(dtype), Rig::cuda(dtype)));
    let cpu = (Some(Rig::cpu(Dtype::F32)), Some(Rig::cpu(Dtype::F32)));
    for (i, rigs) in cuda.into_iter().chain([cpu]).enumerate() {
        let (Some(forward), Some(backward)) = rigs else { return };
        let kept = given.forward().run(forward);
        let got = given.backward(&kept).run(backward).bare("dbeta");
        let mut want = vec![0.0; spec.c];
        for (j, (z, dz)) in kept["z"].iter().zip(&given.dz).enumerate() {
            want[j % spec.c] += if *z > 0.0 { *dz } else { 0.0 };
        }
        assert_eq!(got, want, "rig {i}");
        let some = want.iter().filter(|&&sum| sum > 0.0 && sum < 65535.0).count();
        assert!(some >= 4, "rig {i}: {want:?} tell little");
    }
}

#[test]
fn a_gate_that_does_not_fit_the_residual_is_refused() {
    let spec = NormSpec { groups: 1, rows: 3, c: 8 };
    for residual in [false, true] {
        let given = Given::new(spec, residual, true, 1);
        let kept = given.forward().cpu();
        let case = OpCase::new("norm_backward".into(), |rig| {
            let plan = plan_norm(&mut *rig.dev, spec).unwrap();
            let dresidual = residual.then(|| rig.act_output("dresidual", spec.len()));
            let a = NormBackward {
                dx: rig.act_output("dx", spec.len()),
                dresidual: dresidual.map(ResidualGrad::Map),
                dgamma: rig.adds("dgamma", spec.c),
                dbeta: rig.adds("dbeta", spec.c),
                dz: rig.acts("dz", &given.dz),
                gate: match residual {
                    true => NormGate::Beta(rig.input("beta", &given.params.beta)),
                    false => NormGate::Mask(rig.input("mask", &mask_of(&kept["z"], spec.c))),
                },
                x: rig.acts("x", &given.x),
                saved: rig.input("saved", &kept["saved"]),
                gamma: rig.input("gamma", &given.params.gamma),
            };
            move |dev| norm_backward(dev, &plan, a)
        });
        let refused = case.refusal(Rig::cpu(Dtype::F32)).to_string();
        assert!(refused.contains("give a mask where there is a residual"), "{refused}");
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    for (groups, rows, c) in [(2, 1000, 33), (1, 4097, 5), (3, 50, 300)] {
        let given = Given::new(NormSpec { groups, rows, c }, true, true, 9);
        given.forward().same_bits_on_any_threads();
        given.backward(&given.forward().cpu()).same_bits_on_any_threads();
    }
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let given = Given::new(NormSpec { groups: 2, rows: 5, c: 4 }, true, true, 1);
    given.forward().refuses_other_sizes("norm_forward", &[]);
    given.backward(&given.forward().cpu()).refuses_other_sizes("norm_backward", &[]);
}

#[test]
fn cuda_refuses_what_it_cannot_run() {
    let Some(mut rig) = Rig::cuda(Dtype::F32) else { return };
    for (rows, c) in [(5, 12), (usize::MAX / 64, 8)] {
        let refused = plan_norm(&mut *rig.dev, NormSpec { groups: 1, rows, c });
        assert!(matches!(refused, Err(Error::Input { .. })), "{rows} rows, {c}: {refused:?}");
    }
}
