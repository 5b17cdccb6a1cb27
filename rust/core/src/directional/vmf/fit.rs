//! Sufficient statistics: mean direction, mean resultant length and its complement, in one pass.

use ndarray::{Array1, ArrayView1, ArrayView2};

use super::{LANES, SEGMENT, Total, check_dim, check_norm};
use crate::simd::vectorize;
use crate::special::{Function, bessel_ratio_inverse, evaluate_at};
use crate::{Control, Error, Real, parallel};

/// Rows in a block whose sums run in order; blocks are summed in a tree.
const BLOCK: usize = 64;
/// Below this complement of the resultant length, `1 - length` has lost digits to be recovered.
const CONCENTRATED: f64 = 1e-3;

/// What a sample of unit vectors says of its von Mises-Fisher distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanDirection {
    /// The direction of the weighted sum of the rows; the first axis where that sum is zero.
    pub loc: Array1<f64>,
    /// The mean resultant length R, the norm of the weighted mean of the rows.
    pub length: f64,
    /// 1 - R, with full relative precision however near R comes to 1; 0 where all rows are the same.
    pub complement: f64,
    /// The sum of the weights W.
    pub total_weight: f64,
    /// The effective number of rows, W^2 over the sum of the squared weights.
    pub n_effective: f64,
}

impl MeanDirection {
    /// The concentration of maximum likelihood: infinite where all rows are the same. Where n < d
    /// chance alone makes it large.
    pub fn concentration(&self) -> f64 {
        bessel_ratio_inverse(self.order(), self.length, self.complement)
    }

    /// The standard error of [`concentration`](Self::concentration), (n A'(kappa))^(-1/2).
    pub fn concentration_stderr(&self) -> f64 {
        let kappa = self.concentration();
        if kappa == f64::INFINITY {
            return kappa;
        }
        let slope = evaluate_at(Function::BesselRatio, (0, 1), self.order(), kappa);
        slope.map_or(f64::NAN, |slope| (self.n_effective * slope).sqrt().recip())
    }

    /// v = d/2 - 1, the order of the Bessel functions.
    fn order(&self) -> f64 {
        self.loc.len() as f64 / 2.0 - 1.0
    }
}

/// The mean direction of the unit vectors in the rows of `x`, and their mean resultant length.
///
/// One pass over the data checks the rows and sums them. A second one follows only where R is above
/// 1 - 10^-3, for 1 - R = mean of |x - mu|^2 / 2. Cost O(n d). Rows of weight zero are checked too.
///
/// # Errors
/// [`Error::NotFinite`] or [`Error::NotUnit`] for the first bad row, [`Error::Domain`] for no rows, a
/// negative weight or weights that are all zero, [`Error::Shape`], [`Error::Cancelled`].
pub fn mean_direction<T: Real>(
    x: ArrayView2<'_, T>,
    weights: Option<ArrayView1<'_, f64>>,
    control: &Control,
) -> Result<MeanDirection, Error> {
    let (n, dim) = x.dim();
    check_dim("x", dim)?;
    let (scale, weight) = weight_of(n, weights)?;
    let x = x.as_standard_layout();
    let rows: Vec<&[T]> = x.rows().into_iter().filter_map(|row| row.to_slice()).collect();

    let block_sum = |block: core::ops::Range<usize>| {
        let mut sum = Sum { vector: vec![0.0; dim], weight: 0.0, square: 0.0 };
        let add_rows = vectorize(
            #[inline(always)]
            || {
                for i in block.clone() {
                    let w = weight(i);
                    let square = add_row(&mut sum.vector, rows[i], w);
                    check_norm::<T>("x", i, square)?;
                    sum.weight += w;
                    sum.square += w * w;
                }
                Ok(())
            },
        );
        add_rows.map(|()| sum).map_err(|error| not_finite(&rows).unwrap_or(error))
    };
    let Some(sum) = parallel::reduce_blocks(n, BLOCK, control, block_sum, Sum::merge)? else {
        return Err(Error::Domain { name: "x", expected: "of one row or more", got: 0.0 });
    };
    if !(sum.weight > 0.0) {
        return Err(Error::Domain {
            name: "weights",
            expected: "positive for at least one row",
            got: sum.weight,
        });
    }

    let mut loc = Array1::from_vec(sum.vector);
    let norm = loc.dot(&loc).sqrt();
    if norm > 0.0 {
        loc /= norm;
    } else {
        loc[0] = 1.0;
    }
    let length = (norm / sum.weight).min(1.0);
    let mut complement = 1.0 - length;
    if complement < CONCENTRATED {
        let mu = loc.as_slice().unwrap_or_default();
        let reference = rows[(0..n).find(|&i| weight(i) > 0.0).unwrap_or(0)];
        // The rounding of mu must not pass for a spread of rows that are all the same.
        let block_spread = |block: core::ops::Range<usize>| {
            Ok(vectorize(
                #[inline(always)]
                || {
                    let mut spread = (0.0, true);
                    for i in block.clone() {
                        let same = rows[i] == reference || weight(i) == 0.0;
                        let fall = weight(i) * half_square_distance(rows[i], mu).0;
                        spread = add_spreads(spread, (fall, same));
                    }
                    spread
                },
            ))
        };
        let spread = parallel::reduce_blocks(n, BLOCK, control, block_spread, add_spreads)?;
        complement = match spread {
            Some((spread, false)) => spread / sum.weight,
            _ => 0.0,
        };
    }
    let n_effective = sum.weight * sum.weight / sum.square;
    let total_weight = scale * sum.weight;
    Ok(MeanDirection { loc, length, complement, total_weight, n_effective })
}

/// 1 - mu . x for each row x of `x`, by |x - mu|^2 / 2, which keeps full relative precision where
/// the two are near each other.
///
/// Row i is paired with row i mod m of `loc`. Where a norm is off by e, within tolerance, the result is
/// off by e relative to itself and e^2 / 2; that of 1 - mu . x would be off by e.
///
/// # Errors
/// [`Error::NotUnit`] for the first row of `x` that is no unit vector, [`Error::Shape`],
/// [`Error::Cancelled`].
pub fn one_minus_dot<T: Real, U: Real>(
    x: ArrayView2<'_, T>,
    loc: ArrayView2<'_, U>,
    control: &Control,
) -> Result<Array1<f64>, Error> {
    let dim = x.ncols();
    if loc.ncols() != dim || loc.nrows() == 0 {
        return Err(Error::Shape {
            name: "loc",
            expected: format!("(m, {dim}) with m >= 1"),
            got: loc.shape().to_vec(),
        });
    }
    let (x, loc) = (x.as_standard_layout(), loc.as_standard_layout());
    let rows: Vec<&[T]> = x.rows().into_iter().filter_map(|row| row.to_slice()).collect();
    let locs: Vec<&[U]> = loc.rows().into_iter().filter_map(|row| row.to_slice()).collect();
    let mut out = Array1::zeros(rows.len());
    let elements = out.as_slice_mut().unwrap_or_default();
    parallel::for_each_chunk(elements, BLOCK, control, |start, chunk| {
        vectorize(
            #[inline(always)]
            || {
                for (i, value) in chunk.iter_mut().enumerate() {
                    let i = start + i;
                    let (distance, square) = half_square_distance(rows[i], locs[i % locs.len()]);
                    check_norm::<T>("x", i, square)?;
                    *value = distance;
                }
                Ok(())
            },
        )
        .map_err(|error| not_finite(&rows).unwrap_or(error))
    })?;
    Ok(out)
}

/// Sums over a block of rows.
struct Sum {
    vector: Vec<f64>,
    weight: f64,
    square: f64,
}

impl Sum {
    fn merge(mut self, other: Self) -> Self {
        for (a, b) in self.vector.iter_mut().zip(&other.vector) {
            *a += b;
        }
        self.weight += other.weight;
        self.square += other.square;
        self
    }
}

/// Spreads, and whether all rows are the same.
fn add_spreads(a: (f64, bool), b: (f64, bool)) -> (f64, bool) {
    (a.0 + b.0, a.1 && b.1)
}

/// A scale, and the weight of row i over it; both 1 where no weights are given.
///
/// The scale is a power of two near the largest weight: squares of the quotients neither overflow nor
/// vanish, and division by it rounds nothing.
fn weight_of(
    n: usize,
    weights: Option<ArrayView1<'_, f64>>,
) -> Result<(f64, impl Fn(usize) -> f64 + Sync), Error> {
    let mut scale = 1.0;
    if let Some(weights) = &weights {
        if weights.len() != n {
            return Err(Error::Shape {
                name: "weights",
                expected: format!("({n},)"),
                got: vec![weights.len()],
            });
        }
        if let Some(&got) = weights.iter().find(|w| !(0.0..f64::INFINITY).contains(*w)) {
            return Err(Error::Domain { name: "weights", expected: "finite and >= 0", got });
        }
        let largest = weights.iter().fold(0.0, |a: f64, &b| a.max(b));
        // The exponent alone; the least normal number where that is below it.
        scale = f64::from_bits(largest.to_bits() & f64::INFINITY.to_bits()).max(f64::MIN_POSITIVE);
    }
    Ok((scale, move |i: usize| weights.as_ref().map_or(1.0, |w| w[i] / scale)))
}

/// Where and how many entries are infinite or NaN, if any are.
fn not_finite<T: Real>(rows: &[&[T]]) -> Option<Error> {
    let mut bad = rows.iter().enumerate().flat_map(|(row, values)| {
        let is_bad = |&(_, &value): &(usize, &T)| !Into::<f64>::into(value).is_finite();
        values.iter().enumerate().filter(is_bad).map(move |(column, _)| (row, column))
    });
    let (row, column) = bad.next()?;
    Some(Error::NotFinite { name: "x", count: 1 + bad.count(), row, column })
}

/// Adds `weight` times `row` to `sum`; returns row . row.
#[inline(always)]
fn add_row<T: Real>(sum: &mut [f64], row: &[T], weight: f64) -> f64 {
    let mut square = [0.0; LANES];
    let (sum_body, sum_tail) = sum.as_chunks_mut::<LANES>();
    let (body, tail) = row.as_chunks::<LANES>();
    for (s, x) in sum_body.iter_mut().zip(body) {
        for l in 0..LANES {
            let value: f64 = x[l].into();
            s[l] = weight.mul_add(value, s[l]);
            square[l] = value.mul_add(value, square[l]);
        }
    }
    for (l, (s, x)) in sum_tail.iter_mut().zip(tail).enumerate() {
        let value: f64 = (*x).into();
        *s = weight.mul_add(value, *s);
        square[l] = value.mul_add(value, square[l]);
    }
    square.iter().sum()
}

/// (|x - mu|^2 / 2, |x|^2), summed in fixed lanes, segment by segment.
#[inline(always)]
fn half_square_distance<T: Real, U: Real>(x: &[T], mu: &[U]) -> (f64, f64) {
    let mut total = (Total::default(), Total::default());
    for (x, mu) in x.chunks(SEGMENT).zip(mu.chunks(SEGMENT)) {
        let mut distance = [0.0; LANES];
        let mut square = [0.0; LANES];
        let (x_body, x_tail) = x.as_chunks::<LANES>();
        let (mu_body, mu_tail) = mu.as_chunks::<LANES>();
        for (a, b) in x_body.iter().zip(mu_body) {
            for l in 0..LANES {
                let value: f64 = a[l].into();
                let gap = value - b[l].into();
                distance[l] = gap.mul_add(gap, distance[l]);
                square[l] = value.mul_add(value, square[l]);
            }
        }
        for (l, (a, b)) in x_tail.iter().zip(mu_tail).enumerate() {
            let value: f64 = (*a).into();
            let gap = value - (*b).into();
            distance[l] = gap.mul_add(gap, distance[l]);
            square[l] = value.mul_add(value, square[l]);
        }
        total.0.add(distance);
        total.1.add(square);
    }
    (0.5 * total.0.value(), total.1.value())
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exact cases
mod tests {
    use ndarray::{Array2, Axis, Slice, array};

    use super::*;

    fn circle(angles: &[f64]) -> Array2<f64> {
        Array2::from_shape_fn((angles.len(), 2), |(i, j)| {
            if j == 0 { angles[i].cos() } else { angles[i].sin() }
        })
    }

    #[test]
    fn a_pair_of_directions_has_the_mean_of_its_half_angle() {
        for half in [1.0, 1e-3, 1e-6, 1e-9] {
            let mean =
                mean_direction(circle(&[half, -half]).view(), None, &Control::new()).unwrap();
            let expected = 2.0 * (0.5 * half).sin().powi(2);
            assert!((mean.loc[0] - 1.0).abs() < 1e-15 && mean.loc[1].abs() < 1e-15);
            assert!((mean.length - half.cos()).abs() < 1e-15);
            // Two samples of the von Mises law: A(kappa) = cos(half), and A' from Riccati's equation.
            let (kappa, a) = (mean.concentration(), half.cos());
            let slope = expected * (1.0 + a) - a / kappa;
            if half == 1.0 {
                assert!((crate::special::bessel_ratio(0.0, kappa) - a).abs() < 1e-14);
                assert!((mean.concentration_stderr() * (2.0 * slope).sqrt() - 1.0).abs() < 1e-13);
            }
            // The rounding of the rows themselves leaves 1e-16 / half of it.
            let tolerance = 1e-13_f64.max(4e-16 / half);
            assert!((mean.complement / expected - 1.0).abs() < tolerance, "{half}");
        }
    }

    #[test]
    fn weights_count_as_repetitions() {
        let x = circle(&[0.1, 0.5, 2.0]);
        let weights = array![2.0, 1.0, 0.0];
        let weighted = mean_direction(x.view(), Some(weights.view()), &Control::new()).unwrap();
        let repeated = circle(&[0.1, 0.1, 0.5]);
        let plain = mean_direction(repeated.view(), None, &Control::new()).unwrap();
        assert!((weighted.length - plain.length).abs() < 1e-15);
        assert!((&weighted.loc - &plain.loc).iter().all(|d| d.abs() < 1e-15));
        assert_eq!(weighted.total_weight, 3.0);
        assert_eq!(weighted.n_effective, 9.0 / 5.0);
        assert_eq!(plain.n_effective, 3.0);
    }

    #[test]
    fn the_scale_of_the_weights_changes_no_bit() {
        let x = circle(&[0.1, 0.5, 2.0, 2.2]);
        let fit = |weights: &Array1<f64>| {
            mean_direction(x.view(), Some(weights.view()), &Control::new()).unwrap()
        };
        let weights = array![2.0, 1.0, 0.0, 0.7];
        let expected = fit(&weights);
        for exponent in [-1000, -600, -500, 500, 600, 1000] {
            let scale = 2f64.powi(exponent);
            let found = fit(&(&weights * scale));
            assert_eq!(found.total_weight, scale * expected.total_weight);
            assert_eq!(MeanDirection { total_weight: expected.total_weight, ..found }, expected);
        }
        // The least number that there is, and a sum beyond the largest one.
        let equal = fit(&array![1.0, 1.0, 1.0, 1.0]);
        for weight in [5e-324, f64::MAX] {
            let found = fit(&Array1::from_elem(4, weight));
            assert!((found.n_effective - 4.0).abs() < 1e-14, "{weight}");
            assert!((&found.loc - &equal.loc).iter().all(|d| d.abs() < 1e-15));
            assert!((found.length - equal.length).abs() < 1e-15);
        }
    }

    #[test]
    fn equal_rows_have_no_complement_and_opposite_ones_no_direction() {
        let equal = Array2::from_shape_fn((300, 2), |(_, j)| [0.6, 0.8][j]);
        let mean = mean_direction(equal.view(), None, &Control::new()).unwrap();
        assert_eq!((mean.complement, mean.concentration()), (0.0, f64::INFINITY));
        assert_eq!(mean.concentration_stderr(), f64::INFINITY);
        let single = equal.mapv(|x| x as f32);
        assert_eq!(mean_direction(single.view(), None, &Control::new()).unwrap().complement, 0.0);
        let opposite = array![[0.6, 0.8], [-0.6, -0.8]];
        let mean = mean_direction(opposite.view(), None, &Control::new()).unwrap();
        assert_eq!((mean.length, mean.complement, mean.loc), (0.0, 1.0, array![1.0, 0.0]));
    }

    #[test]
    fn threads_and_layout_never_change_a_bit() {
        let x = circle(&(0..5000).map(|i| (f64::from(i) * 0.7).sin()).collect::<Vec<_>>());
        let found = mean_direction(x.view(), None, &Control::new()).unwrap();
        assert_eq!(found, mean_direction(x.view(), None, &Control::sequential()).unwrap());
        let columns = x.t().as_standard_layout().into_owned();
        assert_eq!(found, mean_direction(columns.t(), None, &Control::new()).unwrap());
    }

    #[test]
    fn the_first_bad_row_is_named() {
        let check = |edit: fn(&mut Array2<f64>)| {
            let mut x = circle(&[0.3; 200]);
            edit(&mut x);
            let one =
                one_minus_dot(x.view(), x.slice_axis(Axis(0), Slice::from(..1)), &Control::new());
            let mean = mean_direction(x.view(), None, &Control::new()).unwrap_err();
            assert_eq!(one.unwrap_err(), mean);
            mean
        };
        assert_eq!(
            check(|x| {
                x[[170, 1]] = f64::NAN;
                x[[100, 0]] = f64::INFINITY;
            }),
            Error::NotFinite { name: "x", count: 2, row: 100, column: 0 }
        );
        let error = check(|x| x.row_mut(150).fill(3.0));
        assert!(matches!(error, Error::NotUnit { name: "x", row: 150, norm } if norm > 4.0));
    }

    #[test]
    fn bad_arguments_are_named() {
        let x = circle(&[0.1, 0.2]);
        let fail = |weights: &[f64]| {
            mean_direction(x.view(), Some(ArrayView1::from(weights)), &Control::new())
                .unwrap_err()
                .to_string()
        };
        assert!(fail(&[1.0]).contains("'weights' must have shape (2,)"));
        assert!(fail(&[1.0, -1.0]).contains("'weights' must be finite and >= 0; got -1"));
        assert!(fail(&[0.0, 0.0]).contains("'weights' must be positive for at least one row"));
        let empty = Array2::<f64>::zeros((0, 2));
        let error = mean_direction(empty.view(), None, &Control::new()).unwrap_err().to_string();
        assert!(error.contains("'x' must be of one row or more"));
        let thin = Array2::<f64>::ones((2, 1));
        assert!(mean_direction(thin.view(), None, &Control::new()).is_err());
        assert!(one_minus_dot(x.view(), thin.view(), &Control::new()).is_err());
    }

    #[test]
    fn one_minus_dot_keeps_its_digits_where_the_two_are_near() {
        let x = array![[1.0, 1e-9], [1.0, 0.0], [-1.0, 0.0]];
        let found = one_minus_dot(x.view(), array![[1.0, 0.0]].view(), &Control::new()).unwrap();
        assert!((found[0] / 5e-19 - 1.0).abs() < 1e-15);
        assert_eq!((found[1], found[2]), (0.0, 2.0));
    }
}
