//! Convolution through cuDNN: every way of each direction against the CPU engine.
//!
//! What only the software cuDNN can do, refuse and mark, is tested there alone.

use half::{bf16, f16};
use picie::base::Error;
use picie::device::Activation;
use picie::device::cuda::{Autotune, Cuda, Options};
use picie::device::ops::{Conv, ConvSpec, DataGrad, Epilogue, Memory, Terms, Uses, WeightGrad};

use crate::util::{Rig, close, round, signed, softgpu};

/// n, h, w, c, k, r, stride, pad: the network's kinds, small and uneven; one pixel; columns of
/// channels and rows of blocks of the kernels of `cuda/conv.cu` below, at and above their edges.
pub const SHAPES: [[usize; 8]; 10] = [
    [3, 9, 11, 4, 8, 7, 2, 3],
    [3, 7, 6, 8, 16, 3, 1, 1],
    [2, 8, 7, 16, 8, 3, 2, 1],
    [3, 5, 4, 24, 40, 1, 1, 0],
    [2, 9, 6, 8, 72, 1, 2, 0],
    [1, 1, 1, 8, 8, 3, 1, 1],
    [1, 4, 8, 8, 64, 1, 1, 0],
    [3, 11, 1, 16, 128, 1, 1, 0],
    [1, 17, 3, 16, 136, 3, 1, 1],
    [3, 80, 70, 8, 8, 1, 1, 0],
];

pub fn spec([n, h, w, c, k, r, stride, pad]: [usize; 8]) -> ConvSpec {
    ConvSpec { n, h, w, c, k, r, stride, pad }
}

/// What one rounding to `A` costs, of the largest: half of its last place. f32 sums differ by their
/// order instead.
fn rounding<A: Activation>() -> f32 {
    match A::NAME {
        "bf16" => 1.01 / 256.0,
        "f16" => 1.01 / 2048.0,
        _ => 1e-5,
    }
}

/// Every epilogue and both kinds of gradients as `bits` runs through 0..32.
pub fn uses(bits: usize) -> Uses {
    let terms = Terms { bias: bits & 1 != 0, residual: bits & 2 != 0, relu: bits & 4 != 0 };
    let data = if bits & 8 != 0 { DataGrad::Accumulate } else { DataGrad::Overwrite };
    let weight = if bits & 16 != 0 { WeightGrad::WeightAndBias } else { WeightGrad::Weight };
    Uses::forward(terms).backward(data, weight)
}

#[derive(Debug, PartialEq)]
struct Outcome {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

/// The three ops on `rig`, for inputs rounded to `A`, so that engines of either type read the same
/// numbers. With `recorded` they run three times, the third from a graph.
fn run<A: Activation, B: Conv>(
    rig: &mut Rig<B>,
    s: ConvSpec,
    uses: Uses,
    recorded: bool,
) -> Outcome {
    let plan = rig.dev.plan_conv(s, uses).unwrap();
    let mut draw = |seed, len| rig.act(&round::<A>(&signed(seed, len)));
    let (x, w, dy) = (draw(0, s.x_len()), draw(1, s.w_len()), draw(2, s.y_len()));
    let accumulate = uses.backward_data == DataGrad::Accumulate;
    let dx = accumulate.then(|| draw(3, s.x_len()));
    let residual = uses.forward.residual.then(|| draw(4, s.y_len()));
    let dx = dx.unwrap_or_else(|| rig.act_output(s.x_len()));
    let y = rig.act_output(s.y_len());
    let bias = uses.forward.bias.then(|| rig.act(&round::<A>(&signed(5, s.k))));
    let dw = rig.input(&signed(6, s.w_len()));
    let start = rig.input(&signed(7, s.k));
    let db = (uses.backward_weight == WeightGrad::WeightAndBias).then_some(start);
    rig.ready();
    let mut recording = B::Recording::default();
    for _ in 0..if recorded { 3 } else { 1 } {
        let queued = rig.dev.replay(&mut recording, |dev| {
            dev.conv_forward(&plan, y, x, w, Epilogue { bias, residual, relu: uses.forward.relu })?;
            dev.conv_backward_data(&plan, dx, dy, w, accumulate)?;
            dev.conv_backward_weight(&plan, dw, db, x, dy)
        });
        queued.unwrap();
    }
    Outcome { y: rig.read_act(y), dx: rig.read_act(dx), dw: rig.read(dw), db: rig.read(start) }
}

/// `roundings` of y, dx and dw on their way.
fn compare<A: Activation>(name: &str, got: &Outcome, want: &Outcome, roundings: [usize; 3]) {
    let [y, dx, dw] = roundings.map(|n| n as f32 * rounding::<A>() + 1e-5);
    close(&format!("y of {name}"), &got.y, &want.y, y);
    close(&format!("dx of {name}"), &got.dx, &want.dx, dx);
    close(&format!("dw of {name}"), &got.dw, &want.dw, dw);
    close(&format!("db of {name}"), &got.db, &want.db, 1e-5);
}

/// `cases` of each shape, in which the software cuDNN refuses `refused`. `roundings` is what the
/// ways that remain cost.
fn agrees<A: Activation>(refused: &str, cases: usize, roundings: [usize; 3]) {
    refuse(refused, 0);
    for (i, &shape) in SHAPES.iter().enumerate() {
        for (j, bits) in
            [7 * i + 13, 31 - 2 * i, 3 * i, 3 * i + 1].into_iter().enumerate().take(cases)
        {
            let (s, uses) = (spec(shape), uses(bits % 32));
            // The software cuDNN's first engine has a workspace, its first deterministic one has
            // none.
            let Some(dev) = engine::<A>(Autotune::Off, (i + j) % 2 == 1, None) else { return };
            let mut rig = Rig::with(dev);
            let got = run::<A, _>(&mut rig, s, uses, false);
            let want = run::<A, _>(&mut Rig::new(), s, uses, false);
            compare::<A>(
                &format!("{s:?} {uses:?} in {}, without {refused}", A::NAME),
                &got,
                &want,
                roundings,
            );
        }
    }
    refuse("", 0);
}

pub fn engine<A: Activation>(
    autotune: Autotune,
    deterministic: bool,
    cache: Option<&std::path::Path>,
) -> Option<Cuda<A>> {
    let options =
        Options { autotune, deterministic, cache: cache.map(Into::into), ..Options::default() };
    softgpu::load().then(|| Cuda::new(options).unwrap())
}

/// Tells the software cuDNN what to refuse on this thread, and which version to be (0: its own).
/// False on a GPU.
pub fn refuse(what: &str, version: usize) -> bool {
    if !softgpu::load() || softgpu::has_gpu() {
        return false;
    }
    let what = std::ffi::CString::new(what).unwrap();
    // SAFETY: the symbol is the software cuDNN's, of this signature; it copies the text.
    unsafe {
        let library = libloading::os::unix::Library::this();
        let set = library
            .get::<unsafe extern "C" fn(*const std::ffi::c_char, usize)>(b"softcudnn_set\0")
            .unwrap();
        set(what.as_ptr(), version);
    }
    true
}

#[test]
fn every_use_agrees_with_the_cpu() {
    // A GPU's cuDNN may choose any way, so it is allowed what the longest costs.
    let roundings = if softgpu::has_gpu() { [2, 2, 1] } else { [1, 1, 1] };
    agrees::<f32>("nothing", 4, roundings);
    // The stem, which is not fused, is rounded before its epilogue as well.
    agrees::<bf16>("nothing", 4, [2, roundings[1], roundings[2]]);
    agrees::<f16>("nothing", 4, [2, roundings[1], roundings[2]]);
}

#[test]
fn nan_outlives_the_relu() {
    for refused in ["", "fused"] {
        refuse(refused, 0);
        let Some(mut rig) = Rig::cuda::<bf16>() else { return };
        let s = spec(SHAPES[1]);
        let plan =
            rig.dev.plan_conv(s, Uses::forward(Terms { relu: true, ..Terms::NONE })).unwrap();
        let (x, w, y) = (
            rig.act(&vec![f32::NAN; s.x_len()]),
            rig.act(&signed(1, s.w_len())),
            rig.act_output(s.y_len()),
        );
        rig.ready();
        rig.dev.conv_forward(&plan, y, x, w, Epilogue { relu: true, ..Epilogue::NONE }).unwrap();
        assert!(rig.read_act(y).iter().all(|y| y.is_nan()), "without {refused:?}");
    }
    refuse("", 0);
}

#[test]
fn ways_around_missing_engines_agree_with_the_cpu() {
    for (refused, roundings) in [
        ("fused", [2, 1, 1]),
        ("beta", [2, 2, 1]),
        ("narrowdw", [2, 1, 0]),
        ("fused,beta,narrowdw", [2, 2, 0]),
    ] {
        agrees::<f32>(refused, 2, roundings);
        agrees::<bf16>(refused, 2, roundings);
        agrees::<f16>(refused, 2, roundings);
    }
}

#[test]
fn recorded_ops_leave_what_plain_ones_do() {
    for refused in ["", "fused,beta,narrowdw"] {
        refuse(refused, 0);
        let (s, uses) = (spec(SHAPES[1]), uses(0b11111));
        let Some(mut rig) = Rig::cuda::<bf16>() else { return };
        let got = run::<bf16, _>(&mut rig, s, uses, true);
        // The CPU engine replays by running again.
        let want = run::<bf16, _>(&mut Rig::new(), s, uses, true);
        compare::<bf16>("the third run", &got, &want, [2, 6, 3]);
    }
    refuse("", 0);
}

#[test]
fn what_cannot_run_is_refused_in_one_line() {
    let Some(mut dev) = engine::<bf16>(Autotune::Off, false, None) else { return };
    for (c, k) in [(3, 8), (12, 8), (8, 12)] {
        let refused = dev
            .plan_conv(spec([1, 4, 4, c, k, 1, 1, 0]), Uses::default())
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains("multiples of 8"), "{refused}");
    }
    assert!(matches!(
        dev.plan_conv(spec([1, 2, 2, 8, 8, 3, 1, 0]), Uses::default()),
        Err(Error::Input { .. })
    ));
    if refuse("all", 0) {
        dev.plan_conv(spec(SHAPES[2]), Uses::default()).unwrap();
        let refused = dev.decide().err().unwrap().to_string();
        assert!(
            refused.contains("no engine") && refused.contains("bf16") && !refused.contains('\n'),
            "{refused}"
        );
    }
    if refuse("", 8905) {
        let refused = Cuda::<bf16>::new(Options::default()).err().unwrap().to_string();
        assert!(refused.contains("older than 9") && refused.contains("pip install"), "{refused}");
    }
    refuse("", 0);
}

#[test]
fn calls_that_a_plan_was_not_made_for_are_refused() {
    let Some(mut rig) = Rig::cuda::<f16>() else { return };
    let s = spec(SHAPES[1]);
    let plan = rig.dev.plan_conv(s, uses(0)).unwrap();
    let (x, w, y) =
        (rig.act_output(s.x_len()), rig.act_output(s.w_len()), rig.act_output(s.y_len()));
    let (dw, db, b, short) =
        (rig.zeros(s.w_len()), rig.zeros(s.k), rig.act_output(s.k), rig.act_output(5));
    rig.ready();
    let dev = &mut rig.dev;
    let unplanned = [
        dev.conv_forward(&plan, y, x, w, Epilogue::bias(b)),
        dev.conv_backward_data(&plan, x, y, w, true),
        dev.conv_backward_weight(&plan, dw, Some(db), x, y),
    ];
    assert!(unplanned.iter().all(|r| matches!(r, Err(Error::Input { .. }))), "{unplanned:?}");
    let wrong = [
        dev.conv_forward(&plan, short, x, w, Epilogue::NONE),
        dev.conv_backward_data(&plan, x, short, w, false),
        dev.conv_backward_weight(&plan, dw, None, short, y),
    ];
    assert!(wrong.iter().all(|r| matches!(r, Err(Error::Shape { got: 5, .. }))), "{wrong:?}");
}
