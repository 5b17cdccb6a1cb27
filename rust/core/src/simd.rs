//! Run-time dispatch: one place to enter code compiled for this machine's vector instructions.

/// Runs `body` compiled for the widest vector instructions that this machine has.
///
/// The closure, and every function it calls, must be `#[inline(always)]`: what is not inlined
/// is compiled for the baseline, where `mul_add` is a software routine.
#[inline(always)]
pub(crate) fn vectorize<R>(body: impl FnMut() -> R) -> R {
    struct Body<F>(F);

    impl<R, F: FnMut() -> R> pulp::WithSimd for Body<F> {
        type Output = R;

        // `Arch::dispatch` takes closures too, but calls them through `FnOnce::call_once`: for a
        // closure that is `FnMut` this is a compiler-made function that is not inlined.
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
            (self.0)()
        }
    }

    pulp::Arch::new().dispatch(Body(body))
}
