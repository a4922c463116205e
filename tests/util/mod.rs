//! What every test uses: random signed data, comparisons that NaN fails, goldens, and descriptions
//! of ops' calls with all that is checked of them.

mod case;
mod counted;
pub mod files;
/// What build.rs reads of a kernel file; the tests need its entries only.
#[allow(dead_code)]
#[path = "../../cuda/parse.rs"]
pub mod kernels;
mod places;
mod results;
mod rig;
pub mod softgpu;

pub use case::{OpCase, Steps, rounding};
pub use counted::peak;
pub use places::{binary, root, tmp};
pub use results::{EXACT, Results, added, equal};
pub use rig::{Number, On, Rig};

use std::collections::BTreeMap;

use picie::base::rng::{Rng, Stream};
use picie::device::Engine;
use picie::net::Saved;
use picie::net::weights::Weights;

/// `len` standard-normal numbers.
pub fn signed(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Other, 0, 0);
    (0..len).map(|_| rng.normal()).collect()
}

/// `len` integers below `n`.
pub fn below(seed: u64, len: usize, n: usize) -> Vec<usize> {
    let mut rng = Rng::new(seed, Stream::Other, 1, 0);
    (0..len).map(|_| rng.below(n)).collect()
}

/// `len` numbers in [lo, hi): tensor `t` of `seed`, as `tests/golden/base/rng.py` draws it bit for
/// bit.
pub fn uniform(seed: u64, t: u32, len: usize, lo: f32, hi: f32) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Other, t, 0);
    (0..len).map(|_| rng.uniform(lo, hi)).collect()
}

/// a + b, element by element: what a `+=` leaves that began with a.
pub fn plus(a: &[f32], b: &[f32]) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

pub fn to_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&v| v as f32).collect()
}

/// Tensors on the device as a file would hold them.
pub fn on_host(dev: &mut dyn Engine, tensors: &[Saved]) -> Weights {
    let read = |saved: &Saved| (saved.name.clone(), saved.read(dev).unwrap());
    Weights { tensors: tensors.iter().map(read).collect(), ..Weights::default() }
}

/// Σ a·b in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The largest difference, as a fraction of the largest magnitude of `want`. NaN where there is
/// one, ∞ for unequal lengths.
pub fn error(got: &[f32], want: &[f32]) -> f32 {
    if got.len() != want.len() {
        return f32::INFINITY;
    }
    let scale = want.iter().fold(0.0f32, |m, v| m.max(v.abs())).max(f32::MIN_POSITIVE);
    // NOTE: f32::max drops NaN, so the maximum is taken by hand.
    got.iter()
        .zip(want)
        .map(|(g, w)| (g - w).abs() / scale)
        .fold(0.0, |m, e| if e.is_nan() || e > m { e } else { m })
}

/// Fails unless `error(got, want) <= tol`.
#[track_caller]
pub fn close(name: &str, got: &[f32], want: &[f32], tol: f32) {
    let err = error(got, want);
    let worst = got
        .iter()
        .zip(want)
        .position(|(g, w)| (g - w).abs().partial_cmp(&tol).is_none_or(|o| o.is_gt()))
        .unwrap_or(0);
    assert!(
        err <= tol,
        "{name}: error {err:e} is not within {tol:e}; lengths {} and {}, first off at {worst}: got {:?}, want {:?}",
        got.len(),
        want.len(),
        got.get(worst),
        want.get(worst)
    );
}

/// Numbers of a golden file, by name.
pub type Golden = BTreeMap<String, Vec<f32>>;

/// The numbers that PyTorch wrote: `tests/golden/<stem>.safetensors`, by name. Integers arrive as
/// f32.
pub fn golden(stem: &str) -> Golden {
    let path = root().join(format!("tests/golden/{stem}.safetensors"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a golden file is whole");
    let read = |t: safetensors::tensor::TensorView| -> Vec<f32> {
        match t.dtype() {
            safetensors::Dtype::F32 => bytemuck::pod_collect_to_vec(t.data()),
            safetensors::Dtype::U8 => t.data().iter().map(|&b| f32::from(b)).collect(),
            safetensors::Dtype::I64 => bytemuck::pod_collect_to_vec::<u8, i64>(t.data())
                .iter()
                .map(|&v| v as f32)
                .collect(),
            other => panic!("goldens hold F32, U8 and I64, not {other:?}"),
        }
    };
    file.iter().map(|(name, t)| (name.to_string(), read(t))).collect()
}

/// The cases of a golden file that has `<case>.spec` of each: the case's number, the sizes in its
/// spec, and the numbers of its other names.
pub fn golden_cases(stem: &str) -> Vec<(u64, Vec<usize>, Golden)> {
    let golden = golden(stem);
    let numbers = |case: u64| -> Golden {
        let own = |(name, values): (&String, &Vec<f32>)| {
            Some((name.strip_prefix(&format!("{case}."))?.to_string(), values.clone()))
        };
        golden.iter().filter_map(own).collect()
    };
    let case = |case: u64| {
        let mut numbers = numbers(case);
        let spec = numbers.remove("spec")?;
        Some((case, spec.iter().map(|&v| v as usize).collect(), numbers))
    };
    (0..).map_while(case).collect()
}

mod tests {
    use super::*;

    #[test]
    fn a_comparison_fails_on_nan_inf_length_zeros_and_sign() {
        let want = signed(1, 50);
        let fails = |got: &[f32]| std::panic::catch_unwind(|| close("", got, &want, 1e-3)).is_err();
        assert!(!fails(&want));
        let mut nan = want.clone();
        nan[49] = f32::NAN;
        let mut inf = want.clone();
        inf[0] = f32::INFINITY;
        let negative: Vec<f32> = want.iter().map(|v| -v).collect();
        assert!(
            fails(&nan)
                && fails(&inf)
                && fails(&want[..49])
                && fails(&[0.0; 50])
                && fails(&negative)
        );
        assert!(
            error(&[f32::NAN, 1.0], &[1.0, 1.0]).is_nan()
                && error(&[1.0, f32::NAN], &[1.0, 1.0]).is_nan()
        );
    }
}
