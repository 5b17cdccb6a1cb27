//! Products of a tall matrix `x` (n by d) with a skinny one of k columns, k in the tens:
//! `x w`, and `x' r`, the two halves of an EM iteration.
//!
//! Both are the same loop, `c[m, :] += a[m, t] b[t, :]` summed over t, with a small tile of `c` kept
//! in registers while `b`, whose rows are padded to whole vectors, streams through: `a` is `x` read
//! along its rows in the first product and along its columns in the second. A general matrix
//! product has to pack `x` first, which for so few columns costs as much as the product itself.

use pulp::bytemuck::{Pod, cast_slice};
use pulp::{Arch, Simd, WithSimd};

use crate::Real;

/// Columns of `x` summed in the working precision before the sum is added to a double.
const PANEL: usize = 256;

/// A float type with vector registers.
pub trait Lanes: Real + Pod {
    /// A register full of them.
    type Vector<S: Simd>: Pod + Send + Sync;
    /// The vector whose lanes are all `x`.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a b + c`, lane by lane.
    fn mul_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;
}

impl Lanes for f64 {
    type Vector<S: Simd> = S::f64s;
    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: Self) -> S::f64s {
        simd.splat_f64s(x)
    }
    #[inline(always)]
    fn mul_add<S: Simd>(simd: S, a: S::f64s, b: S::f64s, c: S::f64s) -> S::f64s {
        simd.mul_add_e_f64s(a, b, c)
    }
}

impl Lanes for f32 {
    type Vector<S: Simd> = S::f32s;
    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: Self) -> S::f32s {
        simd.splat_f32s(x)
    }
    #[inline(always)]
    fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(a, b, c)
    }
}

/// Number of columns, at least `k`, that a skinny matrix of type `T` is padded to: a multiple of 8
/// and of the vector length of this machine.
pub(crate) fn padded<T: Lanes>(k: usize) -> usize {
    struct Length<T>(core::marker::PhantomData<T>);
    impl<T: Lanes> WithSimd for Length<T> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            size_of::<T::Vector<S>>() / size_of::<T>()
        }
    }
    k.next_multiple_of(Arch::new().dispatch(Length::<T>(core::marker::PhantomData)).max(8))
}

/// `c += x w` for `x` of shape (n, d), `w` of shape (d, stride) and `c` of shape (n, stride), all
/// row by row; `stride` comes from [`padded`].
pub(crate) fn multiply_add<T: Lanes>(x: &[T], d: usize, w: &[T], stride: usize, c: &mut [f64]) {
    Arch::new().dispatch(Product { x, d, b: w, stride, c });
}

/// `s += x' r` for `x` of shape (n, d), `r` of shape (n, stride) and `s` of shape (d, stride), all
/// row by row; `stride` comes from [`padded`].
pub(crate) fn transpose_multiply_add<T: Lanes>(
    x: &[T],
    d: usize,
    r: &[T],
    stride: usize,
    s: &mut [f64],
) {
    Arch::new().dispatch(TransposeProduct(Product { x, d, b: r, stride, c: s }));
}

/// `c += sum_i values[i] w[columns[i], :]`, one row of a sparse product; `w` has rows of length
/// `stride`, which comes from [`padded`].
pub(crate) fn gather_add<T: Lanes>(
    columns: &[u32],
    values: &[T],
    w: &[T],
    stride: usize,
    c: &mut [f64],
) {
    Arch::new().dispatch(Gather { columns, values, w, stride, c });
}

/// `lower(s) += x' x` for `x` of shape (n, stride) and `s` of shape (stride, stride), row by row;
/// `stride` comes from [`padded`]. Of the upper triangle only what shares a tile with the lower.
pub(crate) fn gram_add(x: &[f64], stride: usize, s: &mut [f64]) {
    Arch::new().dispatch(Gram(Product { x, d: stride, b: x, stride, c: s }));
}

/// `c += x t` for `x` of shape (n, d), an upper triangular `t` of shape (d, stride) and `c` of shape
/// (n, stride), all row by row: half the work of [`multiply_add`].
pub(crate) fn upper_multiply_add(x: &[f64], d: usize, t: &[f64], stride: usize, c: &mut [f64]) {
    Arch::new().dispatch(UpperProduct(Product { x, d, b: t, stride, c }));
}

struct Product<'a, T> {
    x: &'a [T],
    d: usize,
    b: &'a [T],
    stride: usize,
    c: &'a mut [f64],
}

struct TransposeProduct<'a, T>(Product<'a, T>);

struct Gram<'a>(Product<'a, f64>);

struct UpperProduct<'a>(Product<'a, f64>);

impl<T: Lanes> WithSimd for Product<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Tiles of M rows by 3 vectors: all but a few of the registers hold sums.
        if S::REGISTER_COUNT >= 32 {
            self.rows::<S, 8, false>(simd);
        } else {
            self.rows::<S, 4, false>(simd);
        }
    }
}

impl WithSimd for UpperProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.0.rows::<S, 8, true>(simd);
        } else {
            self.0.rows::<S, 4, true>(simd);
        }
    }
}

impl<T: Lanes> WithSimd for TransposeProduct<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.0.columns::<S, 8, false>(simd);
        } else {
            self.0.columns::<S, 4, false>(simd);
        }
    }
}

impl WithSimd for Gram<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.0.columns::<S, 8, true>(simd);
        } else {
            self.0.columns::<S, 4, true>(simd);
        }
    }
}

impl<T: Lanes> Product<'_, T> {
    #[inline(always)]
    fn rows<S: Simd, const M: usize, const UPPER: bool>(self, simd: S) {
        let Self { x, d, b, stride, c } = self;
        for start in (0..d).step_by(PANEL) {
            let depth = PANEL.min(d - start);
            let b = &b[start * stride..(start + depth) * stride];
            // Row t of an upper triangle has nothing before column t.
            let needed =
                |end: usize| if UPPER { end.saturating_sub(start).min(depth) } else { depth };
            let mut xs = x.chunks_exact(M * d);
            let mut cs = c.chunks_exact_mut(M * stride);
            for (x, c) in xs.by_ref().zip(cs.by_ref()) {
                let mut rows: [&[T]; M] = [&[]; M];
                for m in 0..M {
                    rows[m] = &x[m * d + start..m * d + start + depth];
                }
                strip(simd, needed, &ByRow(rows), b, (stride, stride), c);
            }
            let (x, c) = (xs.remainder(), cs.into_remainder());
            for (x, c) in x.chunks_exact(d).zip(c.chunks_exact_mut(stride)) {
                let row = ByRow([&x[start..start + depth]]);
                strip(simd, needed, &row, b, (stride, stride), c);
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const M: usize, const LOWER: bool>(self, simd: S) {
        let Self { x, d, b, stride, c } = self;
        let n = b.len() / stride;
        if n == 0 {
            return;
        }
        let mut j = 0;
        let mut cs = c.chunks_exact_mut(M * stride);
        for c in cs.by_ref() {
            let width = if LOWER { j + M } else { stride };
            let column = ByColumn { x: &x[j..], d };
            strip::<_, _, _, M>(simd, |_| n, &column, b, (width, stride), c);
            j += M;
        }
        for c in cs.into_remainder().chunks_exact_mut(stride) {
            let column = ByColumn { x: &x[j..], d };
            strip::<_, _, _, 1>(simd, |_| n, &column, b, (stride, stride), c);
            j += 1;
        }
    }
}

/// The left factor of a tile: its column t.
trait Left<T, const M: usize> {
    fn column(&self, t: usize) -> [T; M];
}

/// M rows of `x`.
struct ByRow<'a, T, const M: usize>([&'a [T]; M]);

impl<T: Lanes, const M: usize> Left<T, M> for ByRow<'_, T, M> {
    #[inline(always)]
    fn column(&self, t: usize) -> [T; M] {
        let mut column = [T::zeroed(); M];
        for (element, row) in column.iter_mut().zip(self.0) {
            *element = row[t];
        }
        column
    }
}

/// The first M columns of `x`, whose rows lie `d` apart.
struct ByColumn<'a, T> {
    x: &'a [T],
    d: usize,
}

impl<T: Lanes, const M: usize> Left<T, M> for ByColumn<'_, T> {
    #[inline(always)]
    fn column(&self, t: usize) -> [T; M] {
        let mut column = [T::zeroed(); M];
        column.copy_from_slice(&self.x[t * self.d..t * self.d + M]);
        column
    }
}

/// Adds `a b` to the first `width` columns of M rows of `c`, tile by tile; a tile that ends before
/// column `end` sums `depth(end)` terms.
#[inline(always)]
fn strip<T: Lanes, S: Simd, A: Left<T, M>, const M: usize>(
    simd: S,
    depth: impl Fn(usize) -> usize,
    a: &A,
    b: &[T],
    (width, stride): (usize, usize),
    c: &mut [f64],
) {
    let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
    let b: &[T::Vector<S>] = cast_slice(b);
    let (wanted, vectors) = (width.div_ceil(lanes), stride / lanes);
    let mut v = 0;
    while v < wanted {
        // Two tiles of two vectors rather than three and a lonely one.
        let step = match wanted - v {
            1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
        let (depth, b, c) = (depth((v + step) * lanes), &b[v..], &mut c[v * lanes..]);
        match step {
            1 => tile::<T, S, A, M, 1>(simd, depth, a, b, vectors, c),
            2 => tile::<T, S, A, M, 2>(simd, depth, a, b, vectors, c),
            _ => tile::<T, S, A, M, 3>(simd, depth, a, b, vectors, c),
        }
        v += step;
    }
}

/// Adds `a b` to M rows by N vectors of `c`; rows of `b` lie `stride` vectors apart, as do those of
/// `c`.
#[inline(always)]
fn tile<T: Lanes, S: Simd, A: Left<T, M>, const M: usize, const N: usize>(
    simd: S,
    depth: usize,
    a: &A,
    b: &[T::Vector<S>],
    stride: usize,
    c: &mut [f64],
) {
    let mut sums = [[T::splat(simd, T::zeroed()); N]; M];
    for t in 0..depth {
        let left = a.column(t);
        let right = &b[t * stride..t * stride + N];
        for m in 0..M {
            let factor = T::splat(simd, left[m]);
            for i in 0..N {
                sums[m][i] = T::mul_add(simd, factor, right[i], sums[m][i]);
            }
        }
    }
    let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
    for m in 0..M {
        let sums: &[T] = cast_slice(&sums[m]);
        let c = &mut c[m * stride * lanes..m * stride * lanes + N * lanes];
        for (c, &sum) in c.iter_mut().zip(sums) {
            *c += sum.into();
        }
    }
}

struct Gather<'a, T> {
    columns: &'a [u32],
    values: &'a [T],
    w: &'a [T],
    stride: usize,
    c: &'a mut [f64],
}

impl<T: Lanes> WithSimd for Gather<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
        let w: &[T::Vector<S>] = cast_slice(self.w);
        let vectors = self.stride / lanes;
        for (columns, values) in self.columns.chunks(PANEL).zip(self.values.chunks(PANEL)) {
            let mut v = 0;
            while v < vectors {
                let (w, c) = (&w[v..], &mut self.c[v * lanes..]);
                match vectors - v {
                    1 => gather_tile::<T, S, 1>(simd, columns, values, w, vectors, c),
                    2 => gather_tile::<T, S, 2>(simd, columns, values, w, vectors, c),
                    3 => gather_tile::<T, S, 3>(simd, columns, values, w, vectors, c),
                    _ => gather_tile::<T, S, 4>(simd, columns, values, w, vectors, c),
                }
                v += 4.min(vectors - v);
            }
        }
    }
}

#[inline(always)]
fn gather_tile<T: Lanes, S: Simd, const N: usize>(
    simd: S,
    columns: &[u32],
    values: &[T],
    w: &[T::Vector<S>],
    stride: usize,
    c: &mut [f64],
) {
    let mut sums = [T::splat(simd, T::zeroed()); N];
    for (&column, &value) in columns.iter().zip(values) {
        let start = column as usize * stride;
        let row = &w[start..start + N];
        let factor = T::splat(simd, value);
        for i in 0..N {
            sums[i] = T::mul_add(simd, factor, row[i], sums[i]);
        }
    }
    let sums: &[T] = cast_slice(&sums);
    for (c, &sum) in c.iter_mut().zip(sums) {
        *c += sum.into();
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    /// Small integers: every sum is exact, so the products must be equal to the last bit.
    fn integers<T: Lanes>(n: usize, seed: usize) -> Vec<T> {
        (0..n).map(|i| T::from_f64(((i * 7919 + seed) % 13) as f64 - 6.0)).collect()
    }

    fn product<T: Lanes>(a: T, b: T) -> f64 {
        a.into() * b.into()
    }

    fn check<T: Lanes>() {
        for (n, d, k) in [(0, 3, 2), (1, 1, 1), (7, 5, 3), (19, 300, 20), (64, 17, 50), (9, 9, 70)]
        {
            let stride = padded::<T>(k);
            let (x, w, r) = (integers(n * d, 1), integers(d * stride, 2), integers(n * stride, 3));
            let (mut c, mut s) = (vec![1.0; n * stride], vec![1.0; d * stride]);
            multiply_add::<T>(&x, d, &w, stride, &mut c);
            transpose_multiply_add::<T>(&x, d, &r, stride, &mut s);
            for j in 0..stride {
                for i in 0..n {
                    let sum: f64 = (0..d).map(|t| product(x[i * d + t], w[t * stride + j])).sum();
                    assert!(c[i * stride + j] == 1.0 + sum, "n={n} d={d} k={k}");
                }
                for t in 0..d {
                    let sum: f64 = (0..n).map(|i| product(x[i * d + t], r[i * stride + j])).sum();
                    assert!(s[t * stride + j] == 1.0 + sum, "n={n} d={d} k={k}");
                }
            }
        }
    }

    #[test]
    fn both_products_are_exact_on_small_integers() {
        check::<f64>();
        check::<f32>();
    }

    #[test]
    fn triangles_are_exact_on_small_integers() {
        for (n, d) in [(1, 1), (5, 8), (7, 20), (33, 61), (9, 300)] {
            let stride = padded::<f64>(d);
            let x: Vec<f64> = integers(n * stride, 1);
            let mut s = vec![1.0; stride * stride];
            gram_add(&x, stride, &mut s);
            for (t, j) in (0..stride).flat_map(|t| (0..=t).map(move |j| (t, j))) {
                let sum: f64 = (0..n).map(|i| x[i * stride + t] * x[i * stride + j]).sum();
                assert_eq!(s[t * stride + j], 1.0 + sum, "n={n} d={d}");
            }
            let mut upper: Vec<f64> = integers(d * stride, 2);
            for (t, row) in upper.chunks_exact_mut(stride).enumerate() {
                row[..t].fill(0.0);
            }
            let x: Vec<f64> = integers(n * d, 3);
            let (mut half, mut full) = (vec![1.0; n * stride], vec![1.0; n * stride]);
            upper_multiply_add(&x, d, &upper, stride, &mut half);
            multiply_add(&x, d, &upper, stride, &mut full);
            assert_eq!(half, full, "n={n} d={d}");
        }
    }
}
