//! Products of a tall matrix with a single column, whose rows are read as whole vectors.
//!
//! Columns are padded with zeros to a multiple of [`padded`]: what stands in the matrix behind a row,
//! the next one, is multiplied by them, or goes to places of a sum that nobody reads.

use pulp::bytemuck::{cast_slice, cast_slice_mut};
use pulp::{Arch, Simd, WithSimd};

/// Rows at a time.
const ROWS: usize = 4;

/// The length of a column of `d` numbers.
pub(crate) fn padded(d: usize) -> usize {
    d.next_multiple_of(8)
}

/// `y += x w`, for `x` of rows of length d.
pub(crate) fn multiply_add(x: &[f64], d: usize, w: &[f64], y: &mut [f64]) {
    run::<true, false>(x, d, w, y, &mut []);
}

/// `s += x' y`
pub(crate) fn transpose_multiply_add(x: &[f64], d: usize, y: &[f64], s: &mut [f64]) {
    let mut y = y.to_vec();
    run::<false, true>(x, d, &[], &mut y, s);
}

/// `y += x w`, and then `s += x' y`, some rows at a time while they are at hand.
pub(crate) fn residual_add(x: &[f64], d: usize, w: &[f64], y: &mut [f64], s: &mut [f64]) {
    run::<true, true>(x, d, w, y, s);
}

fn run<const MULTIPLY: bool, const TRANSPOSE: bool>(
    x: &[f64],
    d: usize,
    w: &[f64],
    y: &mut [f64],
    s: &mut [f64],
) {
    let ahead = padded(d) - d;
    let whole = (x.len().saturating_sub(ahead) / d).min(y.len()) / ROWS * ROWS;
    let (first, last) = y.split_at_mut(whole);
    Arch::new().dispatch(Column::<MULTIPLY, TRANSPOSE> { x, d, w, y: first, s });
    // The end of the rows, with zeros behind it.
    let n_last = last.len().next_multiple_of(ROWS);
    let mut end = vec![0.0; n_last * d + ahead];
    end[..last.len() * d].copy_from_slice(&x[whole * d..(whole + last.len()) * d]);
    let mut y = vec![0.0; n_last];
    y[..last.len()].copy_from_slice(last);
    Arch::new().dispatch(Column::<MULTIPLY, TRANSPOSE> { x: &end, d, w, y: &mut y, s });
    last.copy_from_slice(&y[..last.len()]);
}

struct Column<'a, const MULTIPLY: bool, const TRANSPOSE: bool> {
    x: &'a [f64],
    d: usize,
    w: &'a [f64],
    y: &'a mut [f64],
    s: &'a mut [f64],
}

impl<const MULTIPLY: bool, const TRANSPOSE: bool> WithSimd for Column<'_, MULTIPLY, TRANSPOSE> {
    type Output = ();

    // By vectors of the machine: plain loops over lanes of so many rows are left scalar.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, d, w, y, s } = self;
        let (stride, zero) = (padded(d), simd.splat_f64s(0.0));
        let factors: &[S::f64s] = cast_slice(w);
        let out: &mut [S::f64s] = cast_slice_mut(s);
        let row = |i: usize| -> &[S::f64s] { cast_slice(&x[i * d..i * d + stride]) };
        for (i, y) in y.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
            let at = i * ROWS;
            let [p, q, r, t] = [row(at), row(at + 1), row(at + 2), row(at + 3)];
            if MULTIPLY {
                let mut sums = [zero; ROWS];
                for ((((&factor, &p), &q), &r), &t) in factors.iter().zip(p).zip(q).zip(r).zip(t) {
                    sums[0] = simd.mul_add_e_f64s(p, factor, sums[0]);
                    sums[1] = simd.mul_add_e_f64s(q, factor, sums[1]);
                    sums[2] = simd.mul_add_e_f64s(r, factor, sums[2]);
                    sums[3] = simd.mul_add_e_f64s(t, factor, sums[3]);
                }
                for (y, sum) in y.iter_mut().zip(sums) {
                    *y += simd.reduce_sum_f64s(sum);
                }
            }
            if TRANSPOSE {
                let [a, b, c, e] = y.map(|y| simd.splat_f64s(y));
                for ((((out, &p), &q), &r), &t) in out.iter_mut().zip(p).zip(q).zip(r).zip(t) {
                    let even = simd.mul_add_e_f64s(c, r, simd.mul_add_e_f64s(a, p, *out));
                    let odd = simd.mul_add_e_f64s(e, t, simd.mul_f64s(b, q));
                    *out = simd.add_f64s(even, odd);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // sums of small integers are exact
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition() {
        for (n, d) in [(0, 3), (1, 1), (5, 7), (17, 8), (33, 21)] {
            let x: Vec<f64> = (0..n * d).map(|i| (i * 31 % 7) as f64 - 3.0).collect();
            let mut w: Vec<f64> = (0..d).map(|j| j as f64 - 2.0).collect();
            w.resize(padded(d), 0.0);
            let start: Vec<f64> = (0..n).map(|i| (i % 3) as f64).collect();
            let product = |i: usize| -> f64 { (0..d).map(|j| x[i * d + j] * w[j]).sum() };
            let expected: Vec<f64> = (0..n).map(|i| start[i] + product(i)).collect();
            let along = |y: &[f64], j: usize| -> f64 { (0..n).map(|i| y[i] * x[i * d + j]).sum() };
            let mut y = start.clone();
            multiply_add(&x, d, &w, &mut y);
            assert_eq!(y, expected);
            let (mut s, mut both, mut y) =
                (vec![0.0; padded(d)], vec![0.0; padded(d)], start.clone());
            transpose_multiply_add(&x, d, &start, &mut s);
            residual_add(&x, d, &w, &mut y, &mut both);
            assert_eq!(y, expected);
            for j in 0..d {
                assert_eq!((s[j], both[j]), (along(&start, j), along(&expected, j)));
            }
        }
    }
}
