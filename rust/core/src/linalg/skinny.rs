//! Products of a tall matrix `x` (n by d) with a skinny one of k columns, k in the tens:
//! `x w`, and `x' r`, the two halves of an EM iteration.
//!
//! Both are the same loop, `c[m, :] += a[m, t] b[t, :]` summed over t, with a small tile of `c` kept
//! in registers while `b`, whose rows are padded to whole vectors, streams through: `a` is `x` read
//! along its rows in the first product and along its columns in the second. A general matrix
//! product has to pack `x` first, which for so few columns costs as much as the product itself.

use pulp::bytemuck::{Pod, cast_slice, pod_read_unaligned};
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

/// `lower(s) += x' W x` for `x` of shape (n, d), weights of its rows or none, and the first `d` rows and
/// columns of `s`, of shape (stride, stride), row by row; `stride` comes from `padded(d)`. The rest of
/// `s` is of no meaning.
pub(crate) fn gram_add(x: &[f64], d: usize, weights: Option<&[f64]>, stride: usize, s: &mut [f64]) {
    // Rows are read in whole vectors, which reach into the next: the last ones have a copy.
    let n = x.len() / d;
    let ahead = stride.div_ceil(d).min(n);
    let (body, tail) = x.split_at((n - ahead) * d);
    let readable = &x[..((body.len() / d) * d + stride).min(x.len())];
    let mut copy = tail.to_vec();
    copy.resize(tail.len() + stride, 0.0);
    let (first, last) = weights.unwrap_or_default().split_at_checked(n - ahead).unwrap_or_default();
    Arch::new().dispatch(Gram { x: readable, n: n - ahead, d, weights: first, stride, s });
    Arch::new().dispatch(Gram { x: &copy, n: ahead, d, weights: last, stride, s });
}

/// `out_i = |x_i t|^2` for the rows of `x`, of shape (n, d), and `t` of shape (d, stride), row by row;
/// `stride` comes from [`padded`]. Half the work where `t` is upper triangular.
pub(crate) fn squared_norms(
    x: &[f64],
    d: usize,
    t: &[f64],
    stride: usize,
    upper: bool,
    out: &mut [f64],
) {
    Arch::new().dispatch(Norms { x, d, t, stride, upper, out });
}

struct Product<'a, T> {
    x: &'a [T],
    d: usize,
    b: &'a [T],
    stride: usize,
    c: &'a mut [f64],
}

struct TransposeProduct<'a, T>(Product<'a, T>);

struct Gram<'a> {
    x: &'a [f64],
    n: usize,
    d: usize,
    /// Of the rows, or nothing.
    weights: &'a [f64],
    stride: usize,
    s: &'a mut [f64],
}

struct Norms<'a> {
    x: &'a [f64],
    d: usize,
    t: &'a [f64],
    stride: usize,
    upper: bool,
    out: &'a mut [f64],
}

impl<T: Lanes> WithSimd for Product<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Tiles of M rows by 3 vectors: all but a few of the registers hold sums.
        if S::REGISTER_COUNT >= 32 {
            self.rows::<S, 8>(simd);
        } else {
            self.rows::<S, 4>(simd);
        }
    }
}

impl<T: Lanes> WithSimd for TransposeProduct<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.0.columns::<S, 8>(simd);
        } else {
            self.0.columns::<S, 4>(simd);
        }
    }
}

impl WithSimd for Gram<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (S::REGISTER_COUNT >= 32, self.weights.is_empty()) {
            (true, true) => self.run::<S, 8, false>(simd),
            (true, false) => self.run::<S, 8, true>(simd),
            (false, true) => self.run::<S, 4, false>(simd),
            (false, false) => self.run::<S, 4, true>(simd),
        }
    }
}

impl Gram<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize, const WEIGHTED: bool>(self, simd: S) {
        let Self { x, n, d, weights, stride, s } = self;
        if n == 0 {
            return;
        }
        let lanes = size_of::<S::f64s>() / size_of::<f64>();
        for (j, s) in (0..d).step_by(M).zip(s.chunks_exact_mut(M * stride)) {
            let wanted = (j + M).div_ceil(lanes);
            let mut v = 0;
            while v < wanted {
                // Two tiles of two vectors rather than three and a lonely one.
                let step = match wanted - v {
                    1 => 1,
                    2 | 4 => 2,
                    _ => 3,
                };
                let (s, k) = (&mut s[v * lanes..], v * lanes);
                match step {
                    1 => {
                        gram_tile::<S, M, 1, WEIGHTED>(simd, x, (n, d), weights, (j, k), s, stride);
                    }
                    2 => {
                        gram_tile::<S, M, 2, WEIGHTED>(simd, x, (n, d), weights, (j, k), s, stride);
                    }
                    _ => {
                        gram_tile::<S, M, 3, WEIGHTED>(simd, x, (n, d), weights, (j, k), s, stride);
                    }
                }
                v += step;
            }
        }
    }
}

/// Adds the products of M columns of `x` from `j` on with N vectors of columns from `k` on.
#[inline(always)]
fn gram_tile<S: Simd, const M: usize, const N: usize, const WEIGHTED: bool>(
    simd: S,
    x: &[f64],
    (n, d): (usize, usize),
    weights: &[f64],
    (j, k): (usize, usize),
    s: &mut [f64],
    stride: usize,
) {
    let lanes = size_of::<S::f64s>() / size_of::<f64>();
    let mut sums = [[simd.splat_f64s(0.0); N]; M];
    for t in 0..n {
        let left = &x[t * d + j..t * d + j + M];
        let right = &x[t * d + k..t * d + k + N * lanes];
        let mut vectors = [simd.splat_f64s(0.0); N];
        for (i, vector) in vectors.iter_mut().enumerate() {
            *vector = pod_read_unaligned(cast_slice(&right[i * lanes..(i + 1) * lanes]));
            if WEIGHTED {
                *vector = simd.mul_f64s(simd.splat_f64s(weights[t]), *vector);
            }
        }
        for m in 0..M {
            let factor = simd.splat_f64s(left[m]);
            for i in 0..N {
                sums[m][i] = simd.mul_add_e_f64s(factor, vectors[i], sums[m][i]);
            }
        }
    }
    for m in 0..M {
        let sums: &[f64] = cast_slice(&sums[m]);
        let s = &mut s[m * stride..m * stride + N * lanes];
        for (s, &sum) in s.iter_mut().zip(sums) {
            *s += sum;
        }
    }
}

impl WithSimd for Norms<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 { self.run::<S, 8>(simd) } else { self.run::<S, 4>(simd) }
    }
}

impl Norms<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize>(self, simd: S) {
        let Self { x, d, t, stride, upper, out } = self;
        let mut xs = x.chunks_exact(M * d);
        let mut outs = out.chunks_exact_mut(M);
        for (x, out) in xs.by_ref().zip(outs.by_ref()) {
            let mut rows: [&[f64]; M] = [&[]; M];
            for m in 0..M {
                rows[m] = &x[m * d..(m + 1) * d];
            }
            norms_strip(simd, &ByRow(rows), d, t, stride, upper, out);
        }
        for (x, out) in xs.remainder().chunks_exact(d).zip(outs.into_remainder().chunks_mut(1)) {
            norms_strip(simd, &ByRow([x]), d, t, stride, upper, out);
        }
    }
}

/// The squared norms of M rows times `t`.
#[inline(always)]
fn norms_strip<S: Simd, const M: usize>(
    simd: S,
    rows: &ByRow<'_, f64, M>,
    d: usize,
    t: &[f64],
    stride: usize,
    upper: bool,
    out: &mut [f64],
) {
    let lanes = size_of::<S::f64s>() / size_of::<f64>();
    let t: &[S::f64s] = cast_slice(t);
    let vectors = stride / lanes;
    let mut squares = [simd.splat_f64s(0.0); M];
    let mut v = 0;
    while v < vectors {
        // Narrow tiles cut a short triangle closer; they need as many rows as an addition takes cycles.
        let step = match vectors - v {
            _ if upper && M == 8 && vectors <= 4 => 1,
            1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
        // Row i of an upper triangle has nothing before column i.
        let depth = if upper { d.min((v + step) * lanes) } else { d };
        match step {
            1 => squares_tile::<S, M, 1>(simd, rows, depth, &t[v..], vectors, &mut squares),
            2 => squares_tile::<S, M, 2>(simd, rows, depth, &t[v..], vectors, &mut squares),
            _ => squares_tile::<S, M, 3>(simd, rows, depth, &t[v..], vectors, &mut squares),
        }
        v += step;
    }
    for (out, square) in out.iter_mut().zip(squares) {
        *out = simd.reduce_sum_f64s(square);
    }
}

/// Adds the squares of M rows times N vectors of `t`, lane by lane.
#[inline(always)]
fn squares_tile<S: Simd, const M: usize, const N: usize>(
    simd: S,
    rows: &ByRow<'_, f64, M>,
    depth: usize,
    t: &[S::f64s],
    stride: usize,
    squares: &mut [S::f64s; M],
) {
    let mut sums = [[simd.splat_f64s(0.0); N]; M];
    for i in 0..depth {
        let left = rows.column(i);
        let right = &t[i * stride..i * stride + N];
        for m in 0..M {
            let factor = simd.splat_f64s(left[m]);
            for n in 0..N {
                sums[m][n] = simd.mul_add_e_f64s(factor, right[n], sums[m][n]);
            }
        }
    }
    for m in 0..M {
        for sum in sums[m] {
            squares[m] = simd.mul_add_e_f64s(sum, sum, squares[m]);
        }
    }
}

impl<T: Lanes> Product<'_, T> {
    #[inline(always)]
    fn rows<S: Simd, const M: usize>(self, simd: S) {
        let Self { x, d, b, stride, c } = self;
        for start in (0..d).step_by(PANEL) {
            let depth = PANEL.min(d - start);
            let b = &b[start * stride..(start + depth) * stride];
            let mut xs = x.chunks_exact(M * d);
            let mut cs = c.chunks_exact_mut(M * stride);
            for (x, c) in xs.by_ref().zip(cs.by_ref()) {
                let mut rows: [&[T]; M] = [&[]; M];
                for m in 0..M {
                    rows[m] = &x[m * d + start..m * d + start + depth];
                }
                strip(simd, depth, &ByRow(rows), b, stride, c);
            }
            let (x, c) = (xs.remainder(), cs.into_remainder());
            for (x, c) in x.chunks_exact(d).zip(c.chunks_exact_mut(stride)) {
                strip(simd, depth, &ByRow([&x[start..start + depth]]), b, stride, c);
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const M: usize>(self, simd: S) {
        let Self { x, d, b, stride, c } = self;
        let n = b.len() / stride;
        if n == 0 {
            return;
        }
        let mut j = 0;
        let mut cs = c.chunks_exact_mut(M * stride);
        for c in cs.by_ref() {
            strip::<_, _, _, M>(simd, n, &ByColumn { x: &x[j..], d }, b, stride, c);
            j += M;
        }
        for c in cs.into_remainder().chunks_exact_mut(stride) {
            strip::<_, _, _, 1>(simd, n, &ByColumn { x: &x[j..], d }, b, stride, c);
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

/// Adds `a b` to M rows of `c`, tile by tile.
#[inline(always)]
fn strip<T: Lanes, S: Simd, A: Left<T, M>, const M: usize>(
    simd: S,
    depth: usize,
    a: &A,
    b: &[T],
    stride: usize,
    c: &mut [f64],
) {
    let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
    let b: &[T::Vector<S>] = cast_slice(b);
    let vectors = stride / lanes;
    let mut v = 0;
    while v < vectors {
        // Two tiles of two vectors rather than three and a lonely one.
        match vectors - v {
            1 => tile::<T, S, A, M, 1>(simd, depth, a, &b[v..], vectors, &mut c[v * lanes..]),
            2 | 4 => tile::<T, S, A, M, 2>(simd, depth, a, &b[v..], vectors, &mut c[v * lanes..]),
            _ => tile::<T, S, A, M, 3>(simd, depth, a, &b[v..], vectors, &mut c[v * lanes..]),
        }
        v += match vectors - v {
            1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
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
        for (n, d) in [(1, 1), (5, 8), (7, 20), (33, 61), (9, 300), (40, 3), (2, 17)] {
            let stride = padded::<f64>(d);
            let x: Vec<f64> = integers(n * d, 1);
            let mut s = vec![1.0; stride * stride];
            let weights: Vec<f64> = (0..n).map(|i| (i % 3) as f64).collect();
            gram_add(&x, d, None, stride, &mut s);
            gram_add(&x, d, Some(&weights), stride, &mut s);
            for (t, j) in (0..d).flat_map(|t| (0..=t).map(move |j| (t, j))) {
                let sum: f64 =
                    (0..n).map(|i| (1.0 + weights[i]) * x[i * d + t] * x[i * d + j]).sum();
                assert_eq!(s[t * stride + j], 1.0 + sum, "n={n} d={d}");
            }
            let mut upper: Vec<f64> = integers(d * stride, 2);
            for (t, row) in upper.chunks_exact_mut(stride).enumerate() {
                row[..t].fill(0.0);
            }
            let (mut half, mut full) = (vec![0.0; n], vec![0.0; n]);
            squared_norms(&x, d, &upper, stride, true, &mut half);
            squared_norms(&x, d, &upper, stride, false, &mut full);
            assert_eq!(half, full, "n={n} d={d}");
            let mut product = vec![0.0; n * stride];
            multiply_add(&x, d, &upper, stride, &mut product);
            let expected: Vec<f64> =
                product.chunks_exact(stride).map(|row| row.iter().map(|y| y * y).sum()).collect();
            assert_eq!(half, expected, "n={n} d={d}");
        }
    }
}
