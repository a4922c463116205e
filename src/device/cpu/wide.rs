//! Plain loops compiled for the vector unit that is found at run time.

struct Wide<F>(F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Wide<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Runs `work`, an `#[inline(always)]` closure, compiled for the widest vector unit of this
/// machine.
///
/// NOTE: FnMut, not the FnOnce that `dispatch` itself takes: that one is called through a shim of
/// the compiler's, which is not inlined, so that its body is compiled for the smallest unit.
#[inline(always)]
pub fn wide<R>(simd: pulp::Arch, work: impl FnMut() -> R) -> R {
    simd.dispatch(Wide(work))
}
