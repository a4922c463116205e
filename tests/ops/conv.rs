//! Convolution: PyTorch's numbers, plain loops at every tile edge, finite differences, threads. The
//! same cases run through cuDNN in `tests/cuda/conv.rs`, by every way that it has.

use picie::base::Error;
use picie::device::Dtype;
use picie::device::ops::{
    ConvBackwardData, ConvBackwardWeight, ConvForward, ConvSpec, DataGrad, Epilogue, Terms, Uses,
    WeightGrad, conv_backward_data, conv_backward_weight, conv_forward, plan_conv,
};

use crate::util::{On, OpCase, Results, Rig, Steps, added, golden_cases, signed, to_f32, uniform};

/// Of the largest output. Direct f32 sums of up to 49·64 terms stay below 1e-6; Winograd F(2×2,
/// 3×3) adds up to 16 inputs of both signs before it multiplies and up to 9 products after, which
/// costs several times that.
const TOL: f32 = 1e-5;

/// (r, stride, pad): what a ResNet has, and a stem of stride 1.
const KINDS: [(usize, usize, usize); 6] =
    [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (7, 2, 3), (7, 1, 3)];

fn spec([n, h, w, c, k]: [usize; 5], (r, stride, pad): (usize, usize, usize)) -> ConvSpec {
    ConvSpec { n, h, w, c, k, r, stride, pad }
}

/// Every epilogue and both kinds of gradients as `bits` runs through 0..32.
pub fn uses(bits: usize) -> Uses {
    let terms = Terms { bias: bits & 1 != 0, residual: bits & 2 != 0, relu: bits & 4 != 0 };
    let data = if bits & 8 != 0 { DataGrad::Accumulate } else { DataGrad::Overwrite };
    let weight = if bits & 16 != 0 { WeightGrad::WeightAndBias } else { WeightGrad::Weight };
    Uses::forward(terms).backward(data, weight)
}

/// The three ops on random numbers.
pub struct Given {
    pub spec: ConvSpec,
    /// What is asked for, and what the plan is made for.
    pub uses: Uses,
    pub planned: Uses,
    pub x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Given {
    pub fn new(spec: ConvSpec, uses: Uses, seed: u64) -> Self {
        let draw = |t, len| uniform(seed, t, len, -1.0, 1.0);
        Given {
            spec,
            uses,
            planned: uses,
            x: draw(0, spec.x_len()),
            w: draw(1, spec.w_len()),
            dy: draw(2, spec.y_len()),
            bias: signed(1, spec.k),
            residual: signed(2, spec.y_len()),
        }
    }

    fn named(&self, op: &str) -> String {
        format!("{op} of {:?}, {:?}", self.spec, self.uses)
    }

    pub fn forward(&self) -> OpCase<'_> {
        OpCase::new(self.named("conv_forward"), |rig| {
            let plan = plan_conv(&mut *rig.dev, self.spec, self.planned).unwrap();
            let Terms { bias, residual, relu } = self.uses.forward;
            let epilogue = Epilogue {
                bias: bias.then(|| rig.acts("bias", &self.bias)),
                residual: residual.then(|| rig.acts("residual", &self.residual)),
                relu,
            };
            let y = rig.act_output("y", self.spec.y_len());
            let a =
                ConvForward { y, x: rig.acts("x", &self.x), w: rig.acts("w", &self.w), epilogue };
            move |dev| conv_forward(dev, &plan, a)
        })
    }

    pub fn backward_data(&self) -> OpCase<'_> {
        OpCase::new(self.named("conv_backward_data"), |rig| {
            let plan = plan_conv(&mut *rig.dev, self.spec, self.planned).unwrap();
            let (len, accumulate) =
                (self.spec.x_len(), self.uses.backward_data == DataGrad::Accumulate);
            let dx = if accumulate { rig.act_adds("dx", len) } else { rig.act_output("dx", len) };
            let (dy, w) = (rig.acts("dy", &self.dy), rig.acts("w", &self.w));
            let a = ConvBackwardData { dx, dy, w, accumulate };
            move |dev| conv_backward_data(dev, &plan, a)
        })
    }

    pub fn backward_weight(&self) -> OpCase<'_> {
        OpCase::new(self.named("conv_backward_weight"), |rig| {
            let plan = plan_conv(&mut *rig.dev, self.spec, self.planned).unwrap();
            let with_bias = self.uses.backward_weight == WeightGrad::WeightAndBias;
            let a = ConvBackwardWeight {
                dw: rig.adds("dw", self.spec.w_len()),
                db: with_bias.then(|| rig.adds("db", self.spec.k)),
                x: rig.acts("x", &self.x),
                dy: rig.acts("dy", &self.dy),
            };
            move |dev| conv_backward_weight(dev, &plan, a)
        })
    }

    pub fn cases(&self) -> [OpCase<'_>; 3] {
        [self.forward(), self.backward_data(), self.backward_weight()]
    }

    /// The CPU against a reference, which knows the bare convolution and its gradients.
    #[track_caller]
    fn compare(&self, Bare { mut y, dx, dw, db }: Bare) {
        let Uses { forward: Terms { bias, residual, relu }, .. } = self.uses;
        for (i, y) in y.iter_mut().enumerate() {
            *y += if bias { self.bias[i % self.spec.k] } else { 0.0 };
            *y += if residual { self.residual[i] } else { 0.0 };
            *y = if relu { y.max(0.0) } else { *y };
        }
        let accumulate = self.uses.backward_data == DataGrad::Accumulate;
        let dx = if accumulate { added(&dx) } else { dx };
        let mut weight = Results::of([("dw", added(&dw).into())]);
        if self.uses.backward_weight == WeightGrad::WeightAndBias {
            weight.put("db", added(&db).into());
        }
        let want = [Results::of([("y", y.into())]), Results::of([("dx", dx.into())]), weight];
        for (case, want) in self.cases().into_iter().zip(want) {
            case.cpu().close(&want, |_| TOL);
        }
    }

    /// The definition: one nest of loops, f64.
    fn plain(&self) -> Bare {
        let s = self.spec;
        let (mut y, mut dx) = (vec![0.0f64; s.y_len()], vec![0.0f64; s.x_len()]);
        let (mut dw, mut db) = (vec![0.0f64; s.w_len()], vec![0.0f64; s.k]);
        // Pairs (output place, input place) along one side, for tap i of the kernel.
        let taps = |i: usize, outs: usize, ins: usize| {
            (0..outs).filter_map(move |o| {
                (o * s.stride + i).checked_sub(s.pad).filter(|&x| x < ins).map(|x| (o, x))
            })
        };
        for (n, i, j) in (0..s.n * s.r * s.r).map(|v| (v / s.r / s.r, v / s.r % s.r, v % s.r)) {
            for (p, row) in taps(i, s.p(), s.h) {
                for (q, column) in taps(j, s.q(), s.w) {
                    let at_y = ((n * s.p() + p) * s.q() + q) * s.k;
                    let at_x = ((n * s.h + row) * s.w + column) * s.c;
                    for k in 0..s.k {
                        let at_w = ((k * s.r + i) * s.r + j) * s.c;
                        let dy = f64::from(self.dy[at_y + k]);
                        for c in 0..s.c {
                            let (x, w) = (f64::from(self.x[at_x + c]), f64::from(self.w[at_w + c]));
                            y[at_y + k] += x * w;
                            dx[at_x + c] += dy * w;
                            dw[at_w + c] += dy * x;
                        }
                    }
                }
            }
        }
        for (i, &v) in self.dy.iter().enumerate() {
            db[i % s.k] += f64::from(v);
        }
        Bare { y: to_f32(&y), dx: to_f32(&dx), dw: to_f32(&dw), db: to_f32(&db) }
    }
}

/// The convolution and its gradients, of no epilogue and added to nothing.
#[derive(Clone)]
struct Bare {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

#[test]
fn forward_and_gradients_are_pytorchs() {
    let cases = golden_cases("conv");
    assert!(cases.len() >= 9, "the golden file lost its cases");
    for (seed, s, g) in cases {
        let spec = spec([s[0], s[1], s[2], s[3], s[4]], (s[5], s[6], s[7]));
        let [y, dx, dw, db] = ["y", "dx", "dw", "db"].map(|name| g[name].clone());
        let bare = Bare { y, dx, dw, db };
        for bits in [0b10000, 0b11111] {
            Given::new(spec, uses(bits), seed).compare(bare.clone());
        }
    }
}

#[test]
fn every_size_of_a_small_map_agrees_with_plain_loops() {
    for (kind, &rsp) in KINDS.iter().enumerate() {
        let sides = (1..=9).flat_map(|h| (1..=9).map(move |w| (h, w)));
        for (i, (h, w)) in sides.chain([(15, 16), (16, 17), (17, 15), (2, 17), (16, 3)]).enumerate()
        {
            let s = spec([1 + (h + w) % 3, h, w, [3, 1, 4, 2][i % 4], [2, 5, 1][i % 3]], rsp);
            let given = Given::new(s, uses(i + 7 * kind), i as u64);
            given.compare(given.plain());
        }
    }
}

#[test]
fn every_number_of_channels_agrees_with_plain_loops() {
    let channels = [1, 3, 4, 15, 16, 17, 31, 32, 33, 64];
    for (kind, &rsp) in KINDS.iter().enumerate() {
        for (i, &c) in channels.iter().enumerate() {
            // 3 and 7 are coprime to 10: over two passes each c meets two k, each k two c.
            for k in [channels[(3 * i + 1) % 10], channels[(7 * i + 4) % 10]] {
                let s = spec([2, 5, 4 + i % 4, c, k], rsp);
                let given = Given::new(s, uses(3 * i + kind + k), i as u64);
                given.compare(given.plain());
            }
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    for (i, &rsp) in KINDS.iter().enumerate() {
        // With a bias and its gradient.
        let given = Given::new(spec([2, 5, 7 - i % 2, 3, 4], rsp), uses(0b10001), 90 + i as u64);
        let (dx, sums) = (given.backward_data().cpu(), given.backward_weight().cpu());
        let gradients =
            [("x", dx["dx"].clone()), ("w", sums.bare("dw")), ("bias", sums.bare("db"))];
        // y is linear in each of the three, so a step of 1/2 has no error of its own; what is left
        // is f32's in y.
        let steps = Steps { picks: 12, step: 0.5, tol: 1e-5 };
        given.forward().slopes(On::Cpu, ("y", &given.dy), &gradients, steps);
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    for (i, &rsp) in KINDS.iter().enumerate() {
        let given = Given::new(spec([3, 17, 13, 20, 33], rsp), uses(0b11111), i as u64);
        given.cases().iter().for_each(OpCase::same_bits_on_any_threads);
    }
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let given = Given::new(spec([2, 5, 4, 3, 6], (3, 1, 1)), uses(0b11111), 1);
    given.forward().refuses_other_sizes("conv_forward", &[]);
    given.backward_data().refuses_other_sizes("conv_backward_data", &[]);
    given.backward_weight().refuses_other_sizes("conv_backward_weight", &[]);
}

#[test]
fn what_a_plan_was_not_made_for_is_refused() {
    let s = spec([2, 5, 4, 3, 6], (3, 1, 1));
    let (none, all) = (uses(0), uses(0b11111));
    let forward_alone = Uses::forward(Terms::NONE);
    let relu = uses(0b00100);
    for (op, asked, planned) in [
        (0, all, none),
        (0, none, all),
        (0, relu, none),
        (1, all, none),
        (1, none, all),
        (1, none, forward_alone),
        (2, all, none),
        (2, none, all),
        (2, none, forward_alone),
    ] {
        let given = Given { planned, ..Given::new(s, asked, 1) };
        let said = given.cases()[op].refusal(Rig::cpu(Dtype::F32));
        assert!(matches!(said, Error::Input { .. }), "{asked:?} of {planned:?}: {said:?}");
    }
}
