//! The fast Walsh-Hadamard transform down the columns of a matrix, row by row in memory.
//!
//! `H_1 = [1]`, `H_2n = [[H_n, H_n], [H_n, -H_n]]` (Sylvester's order): entry (i, j) is minus one to
//! the number of ones that the binary digits of i and j share.

use crate::parallel::{for_each_chunk, for_each_chunk_of};
use crate::simd::vectorize;
use crate::{Control, Error};

/// Doubles that stay in the first cache while all levels run over them.
const LEAF: usize = 1 << 11;
/// Doubles from which on quarters go to several threads.
const SHARED: usize = 1 << 16;
/// Doubles of each quarter that a thread combines at a time.
const STRIP: usize = 1 << 13;

/// `x <- H x` for `x` of n rows of `d` columns, n a power of two; nothing for none.
///
/// Four quarters are transformed, each on its own until it fits a cache, and then combined: two
/// levels for one pass over memory. O(n d log n) additions.
///
/// # Errors
/// [`Error::Domain`] where n is not a power of two; [`Error::Cancelled`].
pub fn walsh_hadamard(x: &mut [f64], d: usize, control: &Control) -> Result<(), Error> {
    let n = x.len().checked_div(d).unwrap_or(0);
    if n == 0 {
        return Ok(());
    }
    if !n.is_power_of_two() {
        let got = n as f64;
        return Err(Error::Domain { name: "n", expected: "a power of two", got });
    }
    transform(x, d, control)
}

fn transform(x: &mut [f64], d: usize, control: &Control) -> Result<(), Error> {
    if x.len() <= LEAF || x.len() <= 2 * d {
        levels(x, d);
        return Ok(());
    }
    let quarter = x.len() / 4;
    if x.len() <= SHARED {
        for part in x.chunks_exact_mut(quarter) {
            transform(part, d, control)?;
        }
        vectorize(
            #[inline(always)]
            || combine_four(x),
        );
        return Ok(());
    }
    for_each_chunk(x, quarter, control, |_, part| transform(part, d, control))?;
    let [a, b, c, e] = quarters(x);
    for_each_chunk_of([a, b, c, e], quarter, STRIP, control, |_, [a, b, c, e]| {
        vectorize(
            #[inline(always)]
            || butterflies(a, b, c, e),
        );
        Ok(())
    })
}

/// All levels, from the rows up.
fn levels(x: &mut [f64], d: usize) {
    vectorize(
        #[inline(always)]
        || {
            let mut block = d;
            while 4 * block <= x.len() {
                x.chunks_exact_mut(4 * block).for_each(combine_four);
                block *= 4;
            }
            if block < x.len() {
                let (a, b) = x.split_at_mut(block);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
        },
    );
}

#[inline(always)]
fn combine_four(x: &mut [f64]) {
    let [a, b, c, e] = quarters(x);
    butterflies(a, b, c, e);
}

#[inline(always)]
fn quarters(x: &mut [f64]) -> [&mut [f64]; 4] {
    let (left, right) = x.split_at_mut(x.len() / 2);
    let (a, b) = left.split_at_mut(left.len() / 2);
    let (c, e) = right.split_at_mut(right.len() / 2);
    [a, b, c, e]
}

/// `H_4` across four arrays of one length.
#[inline(always)]
fn butterflies(a: &mut [f64], b: &mut [f64], c: &mut [f64], e: &mut [f64]) {
    for (((a, b), c), e) in a.iter_mut().zip(b).zip(c).zip(e) {
        let (s, t, u, v) = (*a + *b, *a - *b, *c + *e, *c - *e);
        (*a, *b, *c, *e) = (s + u, t + v, s - u, t - v);
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // sums of small integers are exact
mod tests {
    use super::*;

    fn integers(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + 3) % 13) as f64 - 6.0).collect()
    }

    #[test]
    fn the_transform_is_the_product_with_sylvesters_matrix() {
        for (n, d) in [(1, 3), (2, 5), (4, 1), (8, 3), (32, 20), (512, 2), (64, 3000)] {
            let x = integers(n * d);
            let mut found = x.clone();
            walsh_hadamard(&mut found, d, &Control::new()).unwrap();
            for i in 0..n {
                for j in (0..d).step_by(1 + d / 7) {
                    let sum: f64 = (0..n)
                        .map(|k| if (i & k).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 } * x[k * d + j])
                        .sum();
                    assert_eq!(found[i * d + j], sum, "n={n} d={d}");
                }
            }
        }
    }

    #[test]
    fn twice_is_n_times_the_input_however_many_threads() {
        for (n, d) in [(1 << 13, 20), (1 << 14, 7), (1 << 18, 1)] {
            let x = integers(n * d);
            let (mut alone, mut shared) = (x.clone(), x.clone());
            walsh_hadamard(&mut alone, d, &Control::sequential()).unwrap();
            walsh_hadamard(&mut shared, d, &Control::new()).unwrap();
            assert_eq!(alone, shared);
            walsh_hadamard(&mut shared, d, &Control::new()).unwrap();
            assert!(shared.iter().zip(&x).all(|(&twice, &x)| twice == n as f64 * x));
        }
    }

    #[test]
    fn three_rows_are_refused() {
        let refused = walsh_hadamard(&mut [0.0; 6], 2, &Control::new());
        assert!(matches!(refused, Err(Error::Domain { name: "n", .. })));
    }
}
