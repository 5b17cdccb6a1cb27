//! Sampling: the exact rejection sampler of Ulrich (1984) and Wood (1994), in complement form.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use super::{LANES, SEGMENT, Total, check_concentration, check_dim, check_norm, n_distributions};
use crate::memory::{shaped, zeros};
use crate::random::{Key, Stream, sin_cos};
use crate::simd::vectorize;
use crate::special::math;
use crate::{Control, Error, Real, parallel};

/// Elements in a chunk of rows that shares its random streams (one row where rows are longer).
const CHUNK: usize = 8192;
/// Candidates tried together; a multiple of 8, the lanes of the widest registers.
const CANDIDATES: usize = 64;

/// Draws `n` vectors from each of m von Mises-Fisher distributions.
///
/// Row i m + j of the result is draw i of distribution j, whose mean direction is row j of `loc` and
/// whose concentration is `concentration[j]`; where one of the two has a single row, it is
/// shared. Concentration 0 is the uniform distribution, infinity the point mass.
///
/// With w = mu . x from [`sample_marginal`]'s law and t uniform on the unit sphere orthogonal to mu,
/// x = w mu + sqrt((1-w)(1+w)) t. The tangent t is a normalised Gaussian vector of d - 1 elements
/// carried over by the Householder reflection that exchanges the first axis and mu, up to a
/// sign. Cost O(d) a draw, almost all of it in the Gaussian elements.
///
/// # Errors
/// [`Error::NotUnit`] for a row of `loc`, [`Error::Domain`] for a negative concentration or fewer
/// than two dimensions, [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`].
pub fn sample<T: Real>(
    loc: ArrayView2<'_, T>,
    concentration: ArrayView1<'_, f64>,
    n: usize,
    key: Key,
    control: &Control,
) -> Result<Array2<T>, Error> {
    let dim = loc.ncols();
    check_dim("loc", dim)?;
    check_concentration(concentration)?;
    let m = n_distributions(loc.nrows(), concentration.len())?;
    let loc = loc.as_standard_layout();
    let locs: Vec<&[T]> = loc.rows().into_iter().filter_map(|row| row.to_slice()).collect();
    let norms = locs
        .iter()
        .enumerate()
        .map(|(row, mu)| {
            check_norm::<T>(
                "loc",
                row,
                vectorize(
                    #[inline(always)]
                    || sums(mu, mu).0,
                ),
            )
        })
        .collect::<Result<Vec<f64>, Error>>()?;
    let proposals = proposals(dim, concentration);

    let rows_per_chunk = rows_per_chunk(dim);
    let mut elements = zeros::<T>(&[n, m, dim])?;
    parallel::for_each_chunk(&mut elements, rows_per_chunk * dim, control, |start, chunk| {
        let first = start / dim;
        let index = (first / rows_per_chunk) as u64;
        let mut complements = vec![0.0; chunk.len() / dim];
        fill_complements(dim, &proposals, first % m, &mut complements, key, index);
        Stream::new(key, 2 * index + 1).fill_normal(chunk);
        vectorize(
            #[inline(always)]
            || {
                for (i, row) in chunk.chunks_exact_mut(dim).enumerate() {
                    let j = (first + i) % m % locs.len();
                    turn(row, locs[j], norms[j], complements[i]);
                }
            },
        );
        Ok(())
    })?;
    Ok(shaped((n * m, dim), elements))
}

/// Draws 1 - w for w = mu . x, from the marginal density proportional to
/// exp(kappa w) (1 - w^2)^((d-3)/2) on [-1, 1].
///
/// Element i m + j of the result is draw i of the distribution with `concentration[j]`. The same key
/// gives the complements of the vectors that [`sample`] draws. The complement has full relative
/// precision however near w comes to 1.
///
/// # Errors
/// [`Error::Domain`] for a negative concentration or fewer than two dimensions, [`Error::Memory`],
/// [`Error::Cancelled`].
pub fn sample_marginal(
    dim: usize,
    concentration: ArrayView1<'_, f64>,
    n: usize,
    key: Key,
    control: &Control,
) -> Result<Array1<f64>, Error> {
    check_dim("dim", dim)?;
    check_concentration(concentration)?;
    let m = concentration.len();
    let proposals = proposals(dim, concentration);
    let mut out = zeros::<f64>(&[n, m])?;
    let rows_per_chunk = rows_per_chunk(dim);
    parallel::for_each_chunk(&mut out, rows_per_chunk, control, |first, chunk| {
        let index = (first / rows_per_chunk) as u64;
        fill_complements(dim, &proposals, first % m, chunk, key, index);
        Ok(())
    })?;
    Ok(Array1::from_vec(out))
}

/// A function of the dimension alone, so that chunks never depend on the number of draws.
fn rows_per_chunk(dim: usize) -> usize {
    (CHUNK / dim).max(1)
}

/// (b, b kappa) for each concentration: b = (sqrt(4 kappa^2 + m^2) - 2 kappa) / m with m = d - 1 shapes
/// the envelope; the product stays finite, m / 4, at an infinite concentration.
fn proposals(dim: usize, concentration: ArrayView1<'_, f64>) -> Vec<(f64, f64)> {
    let m = (dim - 1) as f64;
    let proposal = |&kappa: &f64| {
        if kappa < 1e150 {
            let b = m / (2.0 * kappa + (4.0 * kappa * kappa + m * m).sqrt());
            (b, b * kappa)
        } else {
            (m / (4.0 * kappa), 0.25 * m)
        }
    };
    concentration.iter().map(proposal).collect()
}

/// Fills `out` with 1 - w; row i belongs to the distribution (first + i) mod m.
fn fill_complements(
    dim: usize,
    proposals: &[(f64, f64)],
    first: usize,
    out: &mut [f64],
    key: Key,
    index: u64,
) {
    let m = (dim - 1) as f64;
    let mut stream = Stream::new(key, 2 * index);
    let mut pending: Vec<usize> = (0..out.len()).collect();
    let mut uniforms = [[0.5; CANDIDATES]; 3];
    let [mut b, mut b_kappa, mut margin] = [[0.0; CANDIDATES]; 3];
    let mut complement = [0.0; CANDIDATES];
    while !pending.is_empty() {
        let mut rejected = Vec::new();
        for rows in pending.chunks(CANDIDATES) {
            for u in &mut uniforms {
                stream.fill_uniform(&mut u[..rows.len()]);
            }
            for (i, row) in rows.iter().enumerate() {
                (b[i], b_kappa[i]) = proposals[(first + row) % proposals.len()];
            }
            vectorize(
                #[inline(always)]
                || {
                    let [u, v, t] = &uniforms;
                    for i in 0..rows.len().next_multiple_of(8) {
                        (complement[i], margin[i]) =
                            candidate(m, b[i], b_kappa[i], u[i], v[i], t[i]);
                    }
                },
            );
            for (i, &row) in rows.iter().enumerate() {
                if margin[i] >= 0.0 {
                    out[row] = complement[i];
                } else {
                    rejected.push(row);
                }
            }
        }
        pending = rejected;
    }
}

/// One candidate for 1 - w from three uniforms, and the log of its acceptance probability over `t`:
/// it is accepted where that is not negative, with probability 0.66 or more for every dimension and
/// concentration. `m` is d - 1.
#[inline(always)]
fn candidate(m: f64, b: f64, b_kappa: f64, u: f64, v: f64, t: f64) -> (f64, f64) {
    // z ~ Beta(m/2, m/2) is (1 + rho cos phi) / 2, a coordinate of a uniform point of the sphere in
    // R^(m+1), of which rho^2 = 1 - u^(2/(m-1)) and phi are the polar coordinates in a plane. The
    // smaller of z and 1 - z is formed from 1 - |cos phi| = 2 sin^2(phi/2) without cancellation.
    let power = math::exp(2.0 * math::ln(u) / (m - 1.0));
    let rho = (1.0 - power).sqrt();
    let upper = v < 0.5;
    let (sin, _) = sin_cos(if upper { v } else { 1.0 - v });
    let sin2 = 2.0 * sin * sin;
    let near = 0.5 * (sin2 + (1.0 - sin2) * power / (1.0 + rho));
    let (z, rest) = if upper { (1.0 - near, near) } else { (near, 1.0 - near) };
    // Wood's w = (1 - (1+b) z) / (1 - (1-b) z). In these terms the two parts of the log of the
    // acceptance ratio, kappa (w - x0) and m log((1 - x0 w) / (1 - x0^2)), lose their cancellation.
    let denominator = rest + b * z;
    let complement = 2.0 * b * z / denominator;
    let tilt = 2.0 * b_kappa * (rest - z) / ((1.0 + b) * denominator);
    let log_ratio = tilt + m * math::ln(0.5 * (1.0 + b) / denominator);
    (complement, log_ratio - math::ln(t))
}

/// Turns a row of standard normals into w mu + sqrt(1 - w^2) t.
///
/// With e the first axis, s the sign of mu . e and h = mu + s e, which is never small, the reflection
/// x - h (h . x) / (1 + |mu . e|) takes -s e to mu and the vectors orthogonal to e to those orthogonal
/// to mu. The first normal is not used.
#[inline(always)]
fn turn<T: Real>(row: &mut [T], loc: &[T], norm: f64, complement: f64) {
    let (Some((first, normals)), Some((&head, rest))) = (row.split_first_mut(), loc.split_first())
    else {
        return;
    };
    let (square, dot) = sums(normals, rest);
    let w = 1.0 - complement;
    let scale = (complement * (2.0 - complement)).sqrt() / square.sqrt();
    let head = head.into() / norm;
    let along = scale * dot / norm;
    let shift = (w - along / (1.0 + head.abs())) / norm;
    *first = T::from_f64(w * head - head.signum() * along);
    for (z, &mu) in normals.iter_mut().zip(rest) {
        let value: f64 = (*z).into();
        *z = T::from_f64(shift.mul_add(mu.into(), scale * value));
    }
}

/// (z . z, z . mu), summed in fixed lanes, segment by segment.
#[inline(always)]
fn sums<T: Real>(z: &[T], mu: &[T]) -> (f64, f64) {
    let mut total = (Total::default(), Total::default());
    for (z, mu) in z.chunks(SEGMENT).zip(mu.chunks(SEGMENT)) {
        let mut square = [0.0; LANES];
        let mut dot = [0.0; LANES];
        let (z_body, z_tail) = z.as_chunks::<LANES>();
        let (mu_body, mu_tail) = mu.as_chunks::<LANES>();
        for (a, b) in z_body.iter().zip(mu_body) {
            for l in 0..LANES {
                let value: f64 = a[l].into();
                square[l] = value.mul_add(value, square[l]);
                dot[l] = value.mul_add(b[l].into(), dot[l]);
            }
        }
        for (l, (a, b)) in z_tail.iter().zip(mu_tail).enumerate() {
            let value: f64 = (*a).into();
            square[l] = value.mul_add(value, square[l]);
            dot[l] = value.mul_add((*b).into(), dot[l]);
        }
        total.0.add(square);
        total.1.add(dot);
    }
    (total.0.value(), total.1.value())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, Axis, array};

    use super::super::one_minus_dot;
    use super::*;

    fn axes(dim: usize) -> Array2<f64> {
        // Directions at which a careless reflection would divide by zero, and a plain one.
        let mut loc = Array2::zeros((3, dim));
        loc[[0, 0]] = 1.0;
        loc[[1, 0]] = -1.0;
        loc.row_mut(2).fill(1.0 / (dim as f64).sqrt());
        loc
    }

    /// The norm by compensated sums, exact to rounding.
    fn norm(row: ArrayView1<'_, f64>) -> f64 {
        let (mut sum, mut lost) = (0.0_f64, 0.0);
        for &x in row {
            let square = x * x;
            let next = sum + square;
            lost += (sum - next) + square + x.mul_add(x, -square);
            sum = next;
        }
        (sum + lost).sqrt()
    }

    #[test]
    fn draws_are_unit_vectors_about_their_directions() {
        let control = Control::new();
        for dim in [2, 3, 5, 64, 1000, 20_000] {
            for kappa in [0.0, 1e-3, 10.0, 1e6, 1e12, 1e300] {
                let loc = axes(dim);
                let kappas = array![kappa, kappa, kappa];
                let key = Key::new(dim as u128);
                let x = sample(loc.view(), kappas.view(), 20, key, &control).unwrap();
                let complement = sample_marginal(dim, kappas.view(), 20, key, &control).unwrap();
                for row in x.rows() {
                    assert!((norm(row) - 1.0).abs() <= 4.5e-16, "{dim} {kappa}");
                }
                let measured = one_minus_dot(x.view(), loc.view(), &control).unwrap();
                for (a, b) in measured.iter().zip(&complement) {
                    assert!(
                        (a - b).abs() <= 4e-16 * (1.0 + 4.0 * b.sqrt()),
                        "{dim} {kappa}: {a} {b}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_point_mass_is_drawn_where_the_concentration_is_infinite() {
        let loc = array![[0.6, 0.8]];
        let x = sample(loc.view(), array![f64::INFINITY].view(), 3, Key::new(0), &Control::new());
        for row in x.unwrap().rows() {
            assert_eq!(row, loc.row(0));
        }
    }

    #[test]
    fn threads_never_change_a_draw() {
        let loc = axes(7);
        let kappas = array![0.5, 3.0, 700.0];
        let draw = |control: Control| {
            sample(loc.view(), kappas.view(), 3000, Key::new(9), &control).unwrap()
        };
        let parallel = draw(Control::new());
        assert_eq!(parallel, draw(Control::sequential()));
    }

    #[test]
    fn single_precision_rounds_the_same_draws() {
        let loc = array![[0.0, 1.0, 0.0]];
        let kappa = array![5.0];
        let key = Key::new(4);
        let double = sample(loc.view(), kappa.view(), 100, key, &Control::new()).unwrap();
        let single = sample(loc.mapv(|x| x as f32).view(), kappa.view(), 100, key, &Control::new());
        for (a, b) in double.iter().zip(&single.unwrap()) {
            assert!((a - f64::from(*b)).abs() < 3e-7);
        }
    }

    #[test]
    fn what_is_shared_is_the_same_as_what_is_repeated() {
        let loc = array![[0.6, 0.8]];
        let kappas = array![0.0, 4.0];
        let key = Key::new(5);
        let shared = sample(loc.view(), kappas.view(), 50, key, &Control::new()).unwrap();
        let loc = array![[0.6, 0.8], [0.6, 0.8]];
        let repeated = sample(loc.view(), kappas.view(), 50, key, &Control::new()).unwrap();
        assert_eq!(shared, repeated);
    }

    #[test]
    fn tangents_are_uniform_across_the_direction() {
        // The covariance across the direction is A / kappa = (1 - E w^2) / (d - 1) in all directions.
        let (dim, n) = (4, 100_000);
        let loc = array![[0.5, -0.5, 0.5, 0.5]];
        let x = sample(loc.view(), array![3.0].view(), n, Key::new(6), &Control::new()).unwrap();
        let w = x.dot(&loc.row(0));
        let tangents =
            Array3::from_shape_fn((1, n, dim), |(_, i, j)| x[[i, j]] - w[i] * loc[[0, j]]);
        let t = tangents.index_axis(Axis(0), 0);
        let moment = t.t().dot(&t) / n as f64;
        let across = (1.0 - w.mapv(|w| w * w).mean().unwrap()) / (dim - 1) as f64;
        for ((i, j), &value) in moment.indexed_iter() {
            let projector = f64::from(u8::from(i == j)) - loc[[0, i]] * loc[[0, j]];
            // An entry has a standard deviation below across sqrt(2 / n); 5.3 of them leave 1e-7.
            let bound = 5.3 * across * (2.0 / n as f64).sqrt();
            assert!((value - across * projector).abs() < bound, "{i} {j}");
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let draw = |loc: Array2<f64>, kappa: &[f64]| {
            sample(loc.view(), ArrayView1::from(kappa), 2, Key::new(0), &Control::new())
                .unwrap_err()
                .to_string()
        };
        assert!(draw(array![[1.0, 1.0]], &[1.0]).contains("'loc' must hold unit vectors: row 0"));
        assert!(draw(array![[1.0, 0.0]], &[-1.0]).contains("'concentration' must be >= 0; got -1"));
        assert!(draw(array![[1.0, 0.0]], &[f64::NAN]).contains("'concentration'"));
        assert!(draw(array![[1.0]], &[1.0]).contains("'loc' must be of dimension 2 or more"));
        let two = array![[1.0, 0.0], [0.0, 1.0]];
        assert!(draw(two, &[1.0, 1.0, 1.0]).contains("'concentration' must have shape"));
    }

    #[test]
    fn a_cancelled_draw_stops() {
        let control = Control::new();
        control.cancel();
        let x = sample(array![[1.0, 0.0]].view(), array![1.0].view(), 9, Key::new(0), &control);
        assert_eq!(x, Err(Error::Cancelled));
    }
}
