//! Run-time dispatch: one place to enter code compiled for this machine's vector instructions.

/// What the instructions that a body is compiled for can do and plain arithmetic cannot ask for.
#[derive(Debug, Clone, Copy)]
pub struct Instructions {
    /// The proof that AVX-512 is there.
    #[cfg(target_arch = "x86_64")]
    pub(crate) avx512: Option<pulp::x86::V4>,
    /// The proof that AVX2 is there.
    #[cfg(target_arch = "x86_64")]
    avx2: Option<pulp::x86::V3>,
}

impl Instructions {
    /// Known when a body is compiled, and so is what depends on it.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn of<S: pulp::Simd>(simd: S) -> Self {
        let simd = &simd as &dyn core::any::Any;
        Self { avx512: simd.downcast_ref().copied(), avx2: simd.downcast_ref().copied() }
    }

    /// Asks for the cache line of `values[at]`, which may lie behind the end, without waiting for it.
    ///
    /// The hardware foresees a stream of reads to the end of its page alone. Where much is computed
    /// between two reads, each page would be waited for.
    #[inline(always)]
    pub(crate) fn prefetch<T>(self, values: &[T], at: usize) {
        let place = values.as_ptr().wrapping_add(at).cast();
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.avx512 {
            simd.sse._mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(place);
        } else if let Some(simd) = self.avx2 {
            simd.sse._mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(place);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _: *const i8 = place;
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    fn of<S: pulp::Simd>(_: S) -> Self {
        Self {}
    }
}

/// Runs `body` compiled for the widest vector instructions that this machine has.
///
/// The closure, and every function it calls, must be `#[inline(always)]`: what is not inlined
/// is compiled for the baseline, where `mul_add` is a software routine.
#[inline(always)]
pub(crate) fn vectorize<R>(mut body: impl FnMut() -> R) -> R {
    vectorize_with(
        #[inline(always)]
        |_| body(),
    )
}

/// As [`vectorize`], for a body that is told the instructions.
#[inline(always)]
pub(crate) fn vectorize_with<R>(body: impl FnMut(Instructions) -> R) -> R {
    struct Body<F>(F);

    impl<R, F: FnMut(Instructions) -> R> pulp::WithSimd for Body<F> {
        type Output = R;

        // `Arch::dispatch` takes closures too, but calls them through `FnOnce::call_once`: for a
        // closure that is `FnMut` this is a compiler-made function that is not inlined.
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(mut self, simd: S) -> R {
            (self.0)(Instructions::of(simd))
        }
    }

    pulp::Arch::new().dispatch(Body(body))
}

/// The larger of two numbers, in one instruction: `b` where either is NaN.
#[inline(always)]
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// The largest entry of a row whose length is a multiple of eight; NaNs are passed over.
#[inline(always)]
pub(crate) fn maximum(row: &[f64]) -> f64 {
    let mut high = [f64::NEG_INFINITY; 8];
    for chunk in row.as_chunks::<8>().0 {
        for i in 0..8 {
            high[i] = larger(chunk[i], high[i]);
        }
    }
    fold(high, larger)
}

/// The sum of a row whose length is a multiple of eight.
#[inline(always)]
pub(crate) fn sum(row: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for chunk in row.as_chunks::<8>().0 {
        for i in 0..8 {
            sums[i] += chunk[i];
        }
    }
    fold(sums, |a, b| a + b)
}

/// Joins eight lanes in a tree.
#[inline(always)]
pub(crate) fn fold<T>(lanes: [T; 8], join: impl Fn(T, T) -> T) -> T {
    let [a, b, c, d, e, f, g, h] = lanes;
    join(join(join(a, e), join(c, g)), join(join(b, f), join(d, h)))
}
