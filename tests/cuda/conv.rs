//! Convolution through cuDNN: every way of each direction against the CPU engine.
//!
//! What only the software cuDNN can do, refuse and mark, is tested there alone.

use picie::base::Error;
use picie::device::cuda::{Autotune, Cuda, Options};
use picie::device::ops::{ConvSpec, Terms, Uses, plan_conv};
use picie::device::{Dtype, Engine, Recording};

use crate::ops::conv::Given;
pub use crate::ops::conv::uses;
use crate::util::{OpCase, Rig, rounding, softgpu};

/// n, h, w, c, k, r, stride, pad: the network's kinds, small and uneven; one pixel; columns of
/// channels and rows of blocks of the kernels of `cuda/conv.cu` below, at and above their edges.
/// Those walk vectors of 8, and the pixels of 4 channels are odd in number.
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

/// What `roundings` of y, dx and dw on their way cost, of the largest; f32 sums differ by their
/// order instead.
fn tolerance(dtype: Dtype, [y, dx, dw]: [usize; 3]) -> impl Fn(&str) -> f32 {
    let one = if dtype == Dtype::F32 { 1e-5 } else { 1.01 * rounding(dtype) };
    move |what| {
        let roundings = match what.split('#').next() {
            Some("y") => y,
            Some("dx") => dx,
            Some("dw") => dw,
            _ => 0,
        };
        roundings as f32 * one + 1e-5
    }
}

/// `cases` of each shape, in which the software cuDNN refuses `refused`. `roundings` is what the
/// ways that remain cost.
fn agrees(dtype: Dtype, refused: &str, cases: usize, roundings: [usize; 3]) {
    refuse(refused, 0);
    for (i, &shape) in SHAPES.iter().enumerate() {
        for (j, bits) in
            [7 * i + 13, 31 - 2 * i, 3 * i, 3 * i + 1].into_iter().enumerate().take(cases)
        {
            let given = Given::new(spec(shape), uses(bits % 32), 0);
            let all = OpCase::sequence(format!("without {refused}"), given.cases().into());
            // The software cuDNN's first engine has a workspace, its first deterministic one has
            // none.
            let Some(dev) = engine(dtype, Autotune::Off, (i + j) % 2 == 1, None) else { return };
            let got = all.run(Rig::with(Box::new(dev)));
            got.close(&all.run(Rig::cpu(dtype)), tolerance(dtype, roundings));
        }
    }
    refuse("", 0);
}

pub fn engine(
    dtype: Dtype,
    autotune: Autotune,
    deterministic: bool,
    cache: Option<&std::path::Path>,
) -> Option<Cuda> {
    let options =
        Options { autotune, deterministic, cache: cache.map(Into::into), ..Options::default() };
    softgpu::load().then(|| Cuda::new(options, dtype).unwrap())
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
    agrees(Dtype::F32, "nothing", 4, roundings);
    // The stem, which is not fused, is rounded before its epilogue as well.
    agrees(Dtype::Bf16, "nothing", 4, [2, roundings[1], roundings[2]]);
    agrees(Dtype::F16, "nothing", 4, [2, roundings[1], roundings[2]]);
}

/// The kernels for images: windows beyond every edge, tiles of 16 pixels, strips of 80 and 160
/// columns and 28 rows of y below, at and above their edges; more images than there are blocks for
/// sums of gradients; and an odd width, which they leave to cuDNN.
#[test]
fn images_agree_with_the_cpu() {
    let small = [[3, 1, 2], [2, 9, 30], [390, 3, 2], [200, 8, 162], [1, 9, 31]];
    let large = [[1, 56, 32], [3, 57, 34], [1, 6, 160], [2, 7, 162], [1, 5, 322]];
    let shapes: Vec<[usize; 3]> = small.into_iter().chain(large).collect();
    for dtype in [Dtype::Bf16, Dtype::F16] {
        for (i, &[n, h, w]) in shapes.iter().enumerate() {
            // With and without bias and ReLU; with a residual, which is cuDNN's.
            for bits in [0, 1, 5, 3] {
                let given = Given::new(spec([n, h, w, 4, 64, 7, 2, 3]), uses(bits), i as u64);
                let both = [given.forward(), given.backward_weight()];
                let all = OpCase::sequence("of images".into(), both.into());
                let Some(dev) = engine(dtype, Autotune::Off, false, None) else { return };
                let own = w % 2 == 0;
                let of_cudnn = usize::from(!own || bits == 3);
                let roundings = [1 + of_cudnn, 1, usize::from(!own)];
                let got = all.run(Rig::with(Box::new(dev)));
                got.close(&all.run(Rig::cpu(dtype)), tolerance(dtype, roundings));
            }
        }
    }
}

/// No number of an image goes into a pixel whose window ends before it, however large it is.
#[test]
fn a_pixel_of_an_image_is_read_by_its_windows_alone() {
    let Some(rig) = Rig::cuda(Dtype::Bf16) else { return };
    let mut given = Given::new(spec([1, 16, 64, 4, 64, 7, 2, 3]), Uses::forward(Terms::NONE), 2);
    given.x.fill(0.0);
    // The middle of windows at row 4 and column 15 of y, and in no more than those up to 3 away.
    let (row, column) = (8, 30);
    given.x[(row * 64 + column) * 4..][..4].fill(1e30);
    let y = &given.forward().run(rig)["y"];
    for (i, pixel) in y.chunks(64).enumerate() {
        let (down, across) = ((2 * (i / 32)).abs_diff(row), (2 * (i % 32)).abs_diff(column));
        let touched = pixel.iter().any(|&y| y != 0.0);
        assert_eq!(touched, down <= 3 && across <= 3, "{} {}", i / 32, i % 32);
    }
}

#[test]
fn nan_outlives_the_relu() {
    for refused in ["", "fused"] {
        refuse(refused, 0);
        let Some(rig) = Rig::cuda(Dtype::Bf16) else { return };
        let relu = Uses::forward(Terms { relu: true, ..Terms::NONE });
        let mut given = Given::new(spec(SHAPES[1]), relu, 1);
        given.x.fill(f32::NAN);
        let y = &given.forward().run(rig)["y"];
        assert!(y.iter().all(|y| y.is_nan()), "without {refused:?}");
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
        Dtype::ALL.into_iter().for_each(|dtype| agrees(dtype, refused, 2, roundings));
    }
}

#[test]
fn recorded_ops_leave_what_plain_ones_do() {
    for refused in ["", "fused,beta,narrowdw"] {
        refuse(refused, 0);
        let given = Given::new(spec(SHAPES[1]), uses(0b11111), 0);
        let all = OpCase::sequence("the third run".into(), given.cases().into());
        let Some(cuda) = Rig::cuda(Dtype::Bf16) else { return };
        // The third time from a graph; the CPU engine replays by running again.
        let thrice = |rig| {
            all.run_by(rig, |dev, call| {
                let mut recording = Recording::default();
                (0..3).try_for_each(|_| dev.replay(&mut recording, |dev| call(dev)))
            })
        };
        thrice(cuda).close(&thrice(Rig::cpu(Dtype::Bf16)), tolerance(Dtype::Bf16, [2, 6, 3]));
    }
    refuse("", 0);
}

#[test]
fn what_cannot_run_is_refused_in_one_line() {
    let Some(mut dev) = engine(Dtype::Bf16, Autotune::Off, false, None) else { return };
    for (c, k) in [(3, 8), (12, 8), (8, 12)] {
        let refused = plan_conv(&mut dev, spec([1, 4, 4, c, k, 1, 1, 0]), Uses::default());
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("multiples of 8"), "{refused}");
    }
    let unpadded = plan_conv(&mut dev, spec([1, 2, 2, 8, 8, 3, 1, 0]), Uses::default());
    assert!(matches!(unpadded, Err(Error::Input { .. })));
    if refuse("all", 0) {
        plan_conv(&mut dev, spec(SHAPES[2]), Uses::default()).unwrap();
        let refused = dev.decide().err().unwrap().to_string();
        assert!(
            refused.contains("no engine") && refused.contains("bf16") && !refused.contains('\n'),
            "{refused}"
        );
    }
    if refuse("", 8905) {
        let refused = Cuda::new(Options::default(), Dtype::Bf16).err().unwrap().to_string();
        assert!(refused.contains("older than 9") && refused.contains("pip install"), "{refused}");
    }
    refuse("", 0);
}
