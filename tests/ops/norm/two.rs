//! Two norms that are added up behind one ReLU, as where a block is downsampled: against plain
//! loops, CUDA against the CPU, each at its tile edges; finite differences, threads.

use picie::device::Dtype;
use picie::device::ops::{
    NormBackward, NormForward, NormGate, NormGrads, NormSpec, NormStatistics, Normed, Residual,
    ResidualGrad, norm_backward, norm_forward, norm_statistics, plan_norm,
};

use super::{
    Params, bytes_of, mask_of, plain_backward, plain_forward, same_forward, spread, tolerance,
};
use crate::util::{On, OpCase, Results, Steps, added, to_f32, uniform};

/// What is normalised, and by what.
struct Side {
    x: Vec<f32>,
    params: Params,
}

struct Given {
    spec: NormSpec,
    sides: [Side; 2],
    dz: Vec<f32>,
}

impl Given {
    fn new(spec: NormSpec, seed: u64) -> Self {
        let side = |t| {
            let mut x = uniform(seed, t, spec.len(), -1.0, 3.0);
            spread(&mut x, spec.c);
            Side { x, params: Params::new(seed, t + 1, spec.c) }
        };
        Given { spec, sides: [side(0), side(10)], dz: uniform(seed, 20, spec.len(), -1.0, 1.0) }
    }

    fn named(&self, op: &str) -> String {
        format!("{op} of two of {:?}", self.spec)
    }

    /// The statistics of the second, then the norm of both. `keep`: for a backward.
    fn forward(&self, keep: bool) -> OpCase<'_> {
        OpCase::new(self.named("norm_forward"), move |rig| {
            let ([first, second], spec) = (&self.sides, self.spec);
            let plan = plan_norm(&mut *rig.dev, spec).unwrap();
            let mut a = NormForward {
                z: rig.act_output("z", spec.len()),
                mask: keep.then(|| rig.output("mask", spec.mask_len())),
                saved: rig.output("saved", spec.saved_len()),
                x: rig.acts("x", &first.x),
                residual: None,
                relu: true,
                params: first.params.moved(rig),
            };
            let params = second.params.named(rig, "#2");
            let b = NormStatistics {
                saved: rig.output("saved#2", spec.saved_len()),
                x: rig.acts("x#2", &second.x),
                params,
            };
            let (gamma, beta) = (params.gamma, params.beta);
            a.residual = Some(Residual::Norm(Normed { x: b.x, saved: b.saved, gamma, beta }));
            move |dev| {
                norm_statistics(dev, &plan, b)?;
                norm_forward(dev, &plan, a)
            }
        })
    }

    fn backward<'a>(&'a self, kept: &'a Results) -> OpCase<'a> {
        OpCase::new(self.named("norm_backward"), |rig| {
            let spec = self.spec;
            let plan = plan_norm(&mut *rig.dev, spec).unwrap();
            let (dz, mask) = (rig.acts("dz", &self.dz), rig.input("mask", &bytes_of(kept)));
            let [first, second] = [("", 0), ("#2", 1)].map(|(suffix, i)| {
                let (side, of) = (&self.sides[i], |name: &str| format!("{name}{suffix}"));
                NormGrads {
                    dx: rig.act_output(&of("dx"), spec.len()),
                    dgamma: rig.adds(&of("dgamma"), spec.c),
                    dbeta: rig.adds(&of("dbeta"), spec.c),
                    x: rig.acts(&of("x"), &side.x),
                    saved: rig.input(&of("saved"), &kept[of("saved").as_str()]),
                    gamma: rig.input(&of("gamma"), &side.params.gamma),
                }
            });
            let NormGrads { dx, dgamma, dbeta, x, saved, gamma } = first;
            let (dresidual, gate) = (Some(ResidualGrad::Norm(second)), NormGate::Mask(mask));
            let a = NormBackward { dx, dresidual, dgamma, dbeta, dz, gate, x, saved, gamma };
            move |dev| norm_backward(dev, &plan, a)
        })
    }

    /// Both, by plain loops.
    fn plain(&self) -> [Results; 2] {
        let spec = self.spec;
        let both = [0, 1].map(|i| plain_forward(spec, &self.sides[i].x, &self.sides[i].params));
        let z = both[0].y.iter().zip(&both[1].y).map(|(a, b)| (a + b).max(0.0));
        let z: Vec<f64> = z.collect();
        let dy = z.iter().zip(&self.dz);
        let dy: Vec<f64> = dy.map(|(&z, &dz)| if z > 0.0 { f64::from(dz) } else { 0.0 }).collect();
        let (mut forward, mut backward) = (Results::new("plain"), Results::new("plain"));
        let z = to_f32(&z);
        forward.put("mask", mask_of(&z, spec.c).into());
        forward.put("z", z.into());
        for ((side, plain), suffix) in self.sides.iter().zip(both).zip(["", "#2"]) {
            let gamma = &side.params.gamma;
            let [dx, dgamma, dbeta] = plain_backward(spec, &side.x, &dy, &plain.saved, gamma);
            let named = |name: &str| format!("{name}{suffix}");
            backward.put(&named("dx"), dx.into());
            backward.put(&named("dgamma"), added(&dgamma).into());
            backward.put(&named("dbeta"), added(&dbeta).into());
            forward.put(&named("saved"), plain.saved.into());
            forward.put(&named("running_mean"), plain.mean.into());
            forward.put(&named("running_var"), plain.var.into());
        }
        [forward, backward]
    }
}

/// As of one norm: names of the second end in #2.
fn of_two(dtype: Dtype) -> impl Fn(&str) -> f32 {
    move |what| tolerance(dtype)(what.trim_end_matches("#2"))
}

#[test]
fn every_size_agrees_with_plain_loops() {
    // Of fewer rows, which stand apart by turns, dx is what roundings leave.
    for (i, rows) in [8, 9, 31, 257, 1000].into_iter().enumerate() {
        for (j, c) in [1, 7, 8, 33].into_iter().enumerate() {
            let given =
                Given::new(NormSpec { groups: 1 + (i + j) % 3, rows, c }, (4 * i + j) as u64);
            let [forward, backward] = given.plain();
            same_forward(&given.forward(true).cpu(), &forward, c, Dtype::F32);
            given.backward(&forward).cpu().close(&backward, of_two(Dtype::F32));
        }
    }
}

#[test]
fn every_size_agrees_with_the_cpu() {
    // A column, tiles that are not full, several tiles; chunks that end within a block's rows.
    let shapes = [(8, 1025), (24, 257), (64, 129), (64, 700), (264, 33), (512, 100), (2048, 9)];
    for dtype in Dtype::ALL {
        for (i, (c, rows)) in shapes.into_iter().enumerate() {
            let given = Given::new(NormSpec { groups: 1 + i % 3, rows, c }, i as u64);
            let Some([got, kept]) = given.forward(true).both(dtype) else { return };
            same_forward(&got, &kept, c, dtype);
            given.backward(&kept).agree(dtype, of_two(dtype));
            let without = given.forward(false).both(dtype).unwrap();
            let mut got = got;
            got.take("mask");
            assert!(without[0].bits() == got.bits(), "{:?}: a mask changes more", got.case());
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    let given = Given::new(NormSpec { groups: 2, rows: 40, c: 8 }, 4);
    for on in On::all() {
        let kept = given.forward(true).run(on.rig());
        let back = given.backward(&kept).run(on.rig());
        let mut gradients = Vec::new();
        for (x, gamma, beta, suffix) in
            [("x", "gamma", "beta", ""), ("x#2", "gamma#2", "beta#2", "#2")]
        {
            gradients.push((x, back[&format!("dx{suffix}")].clone()));
            gradients.push((gamma, back.bare(&format!("dgamma{suffix}"))));
            gradients.push((beta, back.bare(&format!("dbeta{suffix}"))));
        }
        // step²·f''' and f32 in z over the step stay below 1e-3; a ReLU that opens within the step
        // adds its share.
        let steps = Steps { picks: 20, step: 0.002, tol: 0.01 };
        given.forward(true).slopes(on, ("z", &given.dz), &gradients, steps);
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let given = Given::new(NormSpec { groups: 2, rows: 1000, c: 33 }, 9);
    given.forward(true).same_bits_on_any_threads();
    given.backward(&given.forward(true).cpu()).same_bits_on_any_threads();
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let given = Given::new(NormSpec { groups: 2, rows: 5, c: 4 }, 1);
    given.backward(&given.forward(true).cpu()).refuses_other_sizes("norm_backward", &[]);
}

#[test]
fn a_mask_that_tells_nothing_is_refused() {
    let spec = NormSpec { groups: 1, rows: 3, c: 8 };
    let given = Given::new(spec, 1);
    let case = OpCase::new("norm_forward".into(), |rig| {
        let plan = plan_norm(&mut *rig.dev, spec).unwrap();
        let a = NormForward {
            z: rig.act_output("z", spec.len()),
            mask: Some(rig.output("mask", spec.mask_len())),
            saved: rig.output("saved", spec.saved_len()),
            x: rig.acts("x", &given.sides[0].x),
            residual: None,
            relu: true,
            params: given.sides[0].params.moved(rig),
        };
        move |dev| norm_forward(dev, &plan, a)
    });
    let refused = case.refusal(crate::util::Rig::cpu(Dtype::F32)).to_string();
    assert!(refused.contains("a mask without a ReLU behind a residual"), "{refused}");
}
