//! Convolution: PyTorch's numbers, plain loops at every tile edge, finite differences, threads.

use picie::base::Error;
use picie::device::ops::{Conv, ConvSpec, DataGrad, Epilogue, Terms, Uses, WeightGrad};

use crate::util::{
    Rig, close, dot, finite_difference, golden, plus, same_bits_on_any_threads, signed, to_f32,
    uniform,
};

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

/// What an op reads.
#[derive(Clone)]
struct Given {
    spec: ConvSpec,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
    bias: Option<Vec<f32>>,
    residual: Option<Vec<f32>>,
    relu: bool,
    /// What is in dx, if the op is to add to it.
    dx: Option<Vec<f32>>,
    with_db: bool,
}

impl Given {
    /// No epilogue, no accumulation.
    fn new(spec: ConvSpec, seed: u64) -> Self {
        let draw = |t, len| uniform(seed, t, len, -1.0, 1.0);
        let (x, w, dy) = (draw(0, spec.x_len()), draw(1, spec.w_len()), draw(2, spec.y_len()));
        Given { spec, x, w, dy, bias: None, residual: None, relu: false, dx: None, with_db: true }
    }

    /// Each epilogue and both kinds of dx and db as `bits` runs through 0..32.
    fn vary(mut self, bits: usize) -> Self {
        let s = self.spec;
        self.bias = (bits & 1 != 0).then(|| signed(1, s.k));
        self.residual = (bits & 2 != 0).then(|| signed(2, s.y_len()));
        self.relu = bits & 4 != 0;
        self.dx = (bits & 8 != 0).then(|| signed(3, s.x_len()));
        self.with_db = bits & 16 == 0;
        self
    }

    fn uses(&self) -> Uses {
        let terms =
            Terms { bias: self.bias.is_some(), residual: self.residual.is_some(), relu: self.relu };
        let data = if self.dx.is_some() { DataGrad::Accumulate } else { DataGrad::Overwrite };
        let weight = if self.with_db { WeightGrad::WeightAndBias } else { WeightGrad::Weight };
        Uses::forward(terms).backward(data, weight)
    }
}

/// What it writes, or should.
#[derive(Clone)]
struct Outcome {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

/// `dw` and `db` begin with these.
fn before(len: usize) -> Vec<f32> {
    signed(4, len)
}

/// The engine's three ops on one arena.
fn run(g: &Given) -> Outcome {
    let (s, mut rig) = (g.spec, Rig::new());
    let plan = rig.dev.plan_conv(s, g.uses()).unwrap();
    let (x, w, dy) = (rig.input(&g.x), rig.input(&g.w), rig.input(&g.dy));
    let bias = g.bias.as_ref().map(|v| rig.input(v));
    let residual = g.residual.as_ref().map(|v| rig.input(v));
    let y = rig.output::<f32>(s.y_len());
    let dx = match &g.dx {
        Some(start) => rig.input(start),
        None => rig.output(s.x_len()),
    };
    let (dw, db) = (rig.input(&before(s.w_len())), rig.input(&before(s.k)));
    rig.ready();
    rig.dev.conv_forward(&plan, y, x, w, Epilogue { bias, residual, relu: g.relu }).unwrap();
    rig.dev.conv_backward_data(&plan, dx, dy, w, g.dx.is_some()).unwrap();
    rig.dev.conv_backward_weight(&plan, dw, g.with_db.then_some(db), x, dy).unwrap();
    Outcome { y: rig.read(y), dx: rig.read(dx), dw: rig.read(dw), db: rig.read(db) }
}

/// From the bare convolution and gradients to what the engine must leave.
fn expect(g: &Given, bare: Outcome) -> Outcome {
    let (mut y, k) = (bare.y, g.spec.k);
    for (i, y) in y.iter_mut().enumerate() {
        *y += g.bias.as_ref().map_or(0.0, |b| b[i % k]) + g.residual.as_ref().map_or(0.0, |r| r[i]);
        *y = if g.relu { y.max(0.0) } else { *y };
    }
    let dx = g.dx.as_ref().map_or(bare.dx.clone(), |start| plus(start, &bare.dx));
    let db = if g.with_db { plus(&before(k), &bare.db) } else { before(k) };
    Outcome { y, dx, dw: plus(&before(bare.dw.len()), &bare.dw), db }
}

#[track_caller]
fn compare(g: &Given, got: &Outcome, bare: Outcome) {
    let want = expect(g, bare);
    let name = |what: &str| {
        format!(
            "{what} of {:?} bias {} residual {} relu {}",
            g.spec,
            g.bias.is_some(),
            g.residual.is_some(),
            g.relu
        )
    };
    close(&name("y"), &got.y, &want.y, TOL);
    close(&name("dx"), &got.dx, &want.dx, TOL);
    close(&name("dw"), &got.dw, &want.dw, TOL);
    close(&name("db"), &got.db, &want.db, TOL);
}

/// The definition: one nest of loops, f64.
fn plain(g: &Given) -> Outcome {
    let s = g.spec;
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
                    let dy = f64::from(g.dy[at_y + k]);
                    for c in 0..s.c {
                        let (x, w) = (f64::from(g.x[at_x + c]), f64::from(g.w[at_w + c]));
                        y[at_y + k] += x * w;
                        dx[at_x + c] += dy * w;
                        dw[at_w + c] += dy * x;
                    }
                }
            }
        }
    }
    for (i, &v) in g.dy.iter().enumerate() {
        db[i % s.k] += f64::from(v);
    }
    Outcome { y: to_f32(&y), dx: to_f32(&dx), dw: to_f32(&dw), db: to_f32(&db) }
}

#[test]
fn forward_and_gradients_are_pytorchs() {
    let golden = golden("conv");
    let mut cases = 0;
    while let Some(s) = golden.get(&format!("{cases}.spec")) {
        let s: Vec<usize> = s.iter().map(|&v| v as usize).collect();
        let get = |name: &str| golden[&format!("{cases}.{name}")].clone();
        let bare = Outcome { y: get("y"), dx: get("dx"), dw: get("dw"), db: get("db") };
        let given = Given::new(spec([s[0], s[1], s[2], s[3], s[4]], (s[5], s[6], s[7])), cases);
        for bits in [0, 0b01111] {
            let given = given.clone().vary(bits);
            compare(&given, &run(&given), bare.clone());
        }
        cases += 1;
    }
    assert!(cases >= 9, "the golden file lost its cases");
}

#[test]
fn every_size_of_a_small_map_agrees_with_plain_loops() {
    for (kind, &rsp) in KINDS.iter().enumerate() {
        let sides = (1..=9).flat_map(|h| (1..=9).map(move |w| (h, w)));
        for (i, (h, w)) in sides.chain([(15, 16), (16, 17), (17, 15), (2, 17), (16, 3)]).enumerate()
        {
            let s = spec([1 + (h + w) % 3, h, w, [3, 1, 4, 2][i % 4], [2, 5, 1][i % 3]], rsp);
            let given = Given::new(s, i as u64).vary(i + 7 * kind);
            compare(&given, &run(&given), plain(&given));
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
                let given =
                    Given::new(spec([2, 5, 4 + i % 4, c, k], rsp), i as u64).vary(3 * i + kind + k);
                compare(&given, &run(&given), plain(&given));
            }
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_forward() {
    for (i, &rsp) in KINDS.iter().enumerate() {
        let given = Given::new(spec([2, 5, 7 - i % 2, 3, 4], rsp), 90 + i as u64);
        let (got, bare) = (run(&given), plain(&given));
        // The bias' slope is that of a forward with a bias; its value does not matter.
        let given = Given { bias: Some(signed(5, 4)), ..given };
        let loss = |g: Given| dot(&run(&g).y, &g.dy);
        // y is linear in each of the three, so a step of 1/2 has no error of its own; what is left
        // is f32's in y.
        let check = |name: &str, x: &[f32], grad: &[f32], f: &dyn Fn(&[f32]) -> Given| {
            finite_difference(name, x, grad, 12, 0.5, 1e-5, |x| loss(f(x)));
        };
        let after = |start: Vec<f32>, end: &[f32]| -> Vec<f32> {
            end.iter().zip(start).map(|(e, s)| e - s).collect()
        };
        check("dx", &given.x, &got.dx, &|x| Given { x: x.to_vec(), ..given.clone() });
        check("dw", &given.w, &after(before(got.dw.len()), &got.dw), &|w| Given {
            w: w.to_vec(),
            ..given.clone()
        });
        let bias = given.bias.clone().unwrap();
        check("db", &bias, &bare.db, &|b| Given { bias: Some(b.to_vec()), ..given.clone() });
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    for (i, &rsp) in KINDS.iter().enumerate() {
        let given = Given::new(spec([3, 17, 13, 20, 33], rsp), i as u64).vary(0b01111);
        same_bits_on_any_threads(&format!("{:?}", given.spec), || {
            let o = run(&given);
            [o.y, o.dx, o.dw, o.db].concat()
        });
    }
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let (s, mut rig) = (spec([2, 5, 4, 3, 6], (3, 1, 1)), Rig::new());
    let mut plan = |terms, data, weight| {
        rig.dev.plan_conv(s, Uses::forward(terms).backward(data, weight)).unwrap()
    };
    let plain = plan(Terms::NONE, DataGrad::Overwrite, WeightGrad::Weight);
    let bias = plan(Terms::BIAS, DataGrad::Accumulate, WeightGrad::WeightAndBias);
    let residual = plan(Terms { residual: true, ..Terms::NONE }, DataGrad::None, WeightGrad::None);
    let (x, w, y) = (rig.zeros(s.x_len()), rig.zeros(s.w_len()), rig.zeros(s.y_len()));
    let (dx, dw) = (rig.zeros(s.x_len()), rig.zeros(s.w_len()));
    let short = rig.zeros(5);
    rig.ready();
    let dev = &mut rig.dev;
    let refused = [
        dev.conv_forward(&plain, short, x, w, Epilogue::NONE),
        dev.conv_forward(&plain, y, short, w, Epilogue::NONE),
        dev.conv_forward(&plain, y, x, short, Epilogue::NONE),
        dev.conv_forward(&bias, y, x, w, Epilogue::bias(short)),
        dev.conv_forward(&residual, y, x, w, Epilogue { residual: Some(short), ..Epilogue::NONE }),
        dev.conv_backward_data(&plain, short, y, w, false),
        dev.conv_backward_data(&plain, dx, short, w, false),
        dev.conv_backward_data(&bias, dx, y, short, true),
        dev.conv_backward_weight(&plain, short, None, x, y),
        dev.conv_backward_weight(&bias, dw, Some(short), x, y),
        dev.conv_backward_weight(&plain, dw, None, short, y),
        dev.conv_backward_weight(&plain, dw, None, x, short),
    ];
    for (i, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Shape { got: 5, .. })), "call {i}: {result:?}");
    }
}

#[test]
fn what_a_plan_was_not_made_for_is_refused() {
    let (s, mut rig) = (spec([2, 5, 4, 3, 6], (3, 1, 1)), Rig::new());
    let mut plan = |terms, data, weight| {
        rig.dev.plan_conv(s, Uses::forward(terms).backward(data, weight)).unwrap()
    };
    let plain = plan(Terms::NONE, DataGrad::Overwrite, WeightGrad::Weight);
    let bias = plan(Terms::BIAS, DataGrad::Accumulate, WeightGrad::WeightAndBias);
    let forward = plan(Terms::NONE, DataGrad::None, WeightGrad::None);
    let (x, w, y) = (rig.zeros(s.x_len()), rig.zeros(s.w_len()), rig.zeros(s.y_len()));
    let (dx, dw, b) = (rig.zeros(s.x_len()), rig.zeros(s.w_len()), rig.zeros(s.k));
    rig.ready();
    let dev = &mut rig.dev;
    let refused = [
        dev.conv_forward(&plain, y, x, w, Epilogue::bias(b)),
        dev.conv_forward(&bias, y, x, w, Epilogue::NONE),
        dev.conv_forward(&plain, y, x, w, Epilogue { relu: true, ..Epilogue::NONE }),
        dev.conv_backward_data(&plain, dx, y, w, true),
        dev.conv_backward_data(&bias, dx, y, w, false),
        dev.conv_backward_data(&forward, dx, y, w, false),
        dev.conv_backward_weight(&plain, dw, Some(b), x, y),
        dev.conv_backward_weight(&bias, dw, None, x, y),
        dev.conv_backward_weight(&forward, dw, None, x, y),
    ];
    for (i, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Input { .. })), "call {i}: {result:?}");
    }
}
