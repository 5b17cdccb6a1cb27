//! Least squares with a single target and fewer than eight columns: sums over rows that are shorter
//! than the loops of wider products need to be worth starting.
//!
//! A row is read as vectors of eight numbers that reach into the next rows; what comes of those is
//! added up beside what is wanted, and read by nobody.

use pulp::bytemuck::{cast_slice, cast_slice_mut, pod_read_unaligned};
use pulp::{Arch, Simd, WithSimd};

/// Numbers that a row is read as.
pub(crate) const STRIDE: usize = 8;
/// Rows whose residuals are made side by side.
const ROWS: usize = 4;
/// Most rows that are copied, for the numbers behind them.
const LAST: usize = STRIDE + ROWS;

/// `s += [x b]' x`, for `x` of rows of length d < 8, `b` of a number a row, and `s` of shape (d + 1, 8).
pub(crate) fn add_normal_equations(x: &[f64], d: usize, b: &[f64], s: &mut [f64]) {
    in_readable_parts(x, d, b, |x, b| match d {
        1 => Arch::new().dispatch(Normal::<1, 2> { x, b, s }),
        2 => Arch::new().dispatch(Normal::<2, 3> { x, b, s }),
        3 => Arch::new().dispatch(Normal::<3, 4> { x, b, s }),
        4 => Arch::new().dispatch(Normal::<4, 5> { x, b, s }),
        5 => Arch::new().dispatch(Normal::<5, 6> { x, b, s }),
        6 => Arch::new().dispatch(Normal::<6, 7> { x, b, s }),
        _ => Arch::new().dispatch(Normal::<7, 8> { x, b, s }),
    });
}

/// `gradient += x' r` for `r = b - x beta`, which is shorter than 8; returns the sum of the squares of r.
pub(crate) fn add_residual(
    x: &[f64],
    beta: &[f64],
    b: &[f64],
    gradient: &mut [f64; STRIDE],
) -> f64 {
    let d = beta.len();
    let mut squares = 0.0;
    in_readable_parts(x, d, b, |x, b| {
        squares += match d {
            1 => Arch::new().dispatch(Residual::<1> { x, beta, b, gradient }),
            2 => Arch::new().dispatch(Residual::<2> { x, beta, b, gradient }),
            3 => Arch::new().dispatch(Residual::<3> { x, beta, b, gradient }),
            4 => Arch::new().dispatch(Residual::<4> { x, beta, b, gradient }),
            5 => Arch::new().dispatch(Residual::<5> { x, beta, b, gradient }),
            6 => Arch::new().dispatch(Residual::<6> { x, beta, b, gradient }),
            _ => Arch::new().dispatch(Residual::<7> { x, beta, b, gradient }),
        };
    });
    squares
}

/// Calls `body` with some rows at a time, in whole groups, behind which there are numbers to be read.
fn in_readable_parts(x: &[f64], d: usize, b: &[f64], mut body: impl FnMut(&[f64], &[f64])) {
    let whole = b.len().saturating_sub(STRIDE.div_ceil(d)) / ROWS * ROWS;
    let (first, last) = b.split_at(whole);
    body(x, first);
    // The end, with zeros behind it.
    let (mut values, mut targets) = ([0.0; (LAST + 1) * STRIDE], [0.0; LAST]);
    values[..last.len() * d].copy_from_slice(&x[whole * d..]);
    targets[..last.len()].copy_from_slice(last);
    body(&values, &targets[..last.len().next_multiple_of(ROWS)]);
}

struct Normal<'a, const D: usize, const M: usize> {
    x: &'a [f64],
    b: &'a [f64],
    s: &'a mut [f64],
}

struct Residual<'a, const D: usize> {
    x: &'a [f64],
    beta: &'a [f64],
    b: &'a [f64],
    gradient: &'a mut [f64; STRIDE],
}

/// The number of vectors in a row as it is read.
const fn n_vectors<S: Simd>() -> usize {
    STRIDE * size_of::<f64>() / size_of::<S::f64s>()
}

/// Row `t`, of `d` numbers, and what follows it, as N vectors.
#[inline(always)]
fn row<S: Simd, const N: usize>(simd: S, x: &[f64], d: usize, t: usize) -> [S::f64s; N] {
    let (values, lanes) = (&x[t * d..t * d + STRIDE], STRIDE / N);
    let mut vectors = [simd.splat_f64s(0.0); N];
    for (i, vector) in vectors.iter_mut().enumerate() {
        *vector = pod_read_unaligned(cast_slice(&values[i * lanes..(i + 1) * lanes]));
    }
    vectors
}

impl<const D: usize, const M: usize> WithSimd for Normal<'_, D, M> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match n_vectors::<S>() {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, 8>(simd),
        }
    }
}

impl<const D: usize, const M: usize> Normal<'_, D, M> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        let Self { x, b, s } = self;
        let mut sums = [[simd.splat_f64s(0.0); N]; M];
        for (t, &b) in b.iter().enumerate() {
            let vectors = row::<S, N>(simd, x, D, t);
            for (m, sums) in sums.iter_mut().enumerate() {
                let factor = simd.splat_f64s(if m < D { x[t * D + m] } else { b });
                for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                    *sum = simd.mul_add_e_f64s(factor, vector, *sum);
                }
            }
        }
        for (s, sums) in s.chunks_exact_mut(STRIDE).zip(&sums) {
            s.iter_mut().zip(cast_slice::<_, f64>(sums)).for_each(|(s, sum)| *s += sum);
        }
    }
}

impl<const D: usize> WithSimd for Residual<'_, D> {
    type Output = f64;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        match n_vectors::<S>() {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, 8>(simd),
        }
    }
}

impl<const D: usize> Residual<'_, D> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) -> f64 {
        let Self { x, beta, b, gradient } = self;
        let mut factors = [0.0; D];
        factors.copy_from_slice(beta);
        let mut squares = [0.0; ROWS];
        let mut sums = [[simd.splat_f64s(0.0); N]; ROWS];
        for (g, group) in b.as_chunks::<ROWS>().0.iter().enumerate() {
            for (i, &b) in group.iter().enumerate() {
                let t = g * ROWS + i;
                let mut left = b;
                for (beta, x) in factors.iter().zip(&x[t * D..(t + 1) * D]) {
                    left = (-beta).mul_add(*x, left);
                }
                squares[i] = left.mul_add(left, squares[i]);
                let factor = simd.splat_f64s(left);
                for (sum, vector) in sums[i].iter_mut().zip(row::<S, N>(simd, x, D, t)) {
                    *sum = simd.mul_add_e_f64s(factor, vector, *sum);
                }
            }
        }
        let gradient: &mut [S::f64s] = cast_slice_mut(gradient);
        for (i, out) in gradient.iter_mut().enumerate() {
            let even = simd.add_f64s(sums[0][i], sums[2][i]);
            let odd = simd.add_f64s(sums[1][i], sums[3][i]);
            *out = simd.add_f64s(*out, simd.add_f64s(even, odd));
        }
        squares.iter().sum()
    }
}
