//! Sampling: the exact rejection sampler of Ulrich (1984) and Wood (1994), in complement form.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use super::{check_concentration, check_dim, check_norm, n_distributions};
use crate::random::{Key, Stream, sin_cos};
use crate::simd::vectorize;
use crate::special::math;
use crate::{Control, Error, Real, parallel};

/// Elements in a chunk of rows that shares its random streams (one row where rows are longer).
const CHUNK: usize = 8192;
/// Candidates tried together; a multiple of 8, the lanes of the widest registers.
const CANDIDATES: usize = 64;
/// Lanes of the running sums over a row.
const LANES: usize = 16;
/// Elements summed in lanes before they join the total.
const SEGMENT: usize = 1024;

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
/// than two dimensions, [`Error::Shape`], [`Error::Cancelled`].
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

    let mut out = Array2::from_elem((n * m, dim), T::from_f64(0.0));
    let rows_per_chunk = rows_per_chunk(dim);
    let elements = out.as_slice_mut().unwrap_or_default();
    parallel::for_each_chunk(elements, rows_per_chunk * dim, control, |start, chunk| {
        let first = start / dim;
        let index = (first / rows_per_chunk) as u64;
        let mut complements = vec![0.0; chunk.len() / dim];
        fill_complements(dim, &proposals, first % m, &mut complements, key, index);
        Stream::new(key, 2 * index + 1).fill_normal(chunk);
        for (i, (row, &complement)) in chunk.chunks_exact_mut(dim).zip(&complements).enumerate() {
            let j = (first + i) % m % locs.len();
            turn(row, locs[j], norms[j], complement);
        }
        Ok(())
    })?;
    Ok(out)
}

/// Draws 1 - w for w = mu . x, from the marginal density proportional to
/// exp(kappa w) (1 - w^2)^((d-3)/2) on [-1, 1].
///
/// Element i m + j of the result is draw i of the distribution with `concentration[j]`. The same key
/// gives the complements of the vectors that [`sample`] draws. The complement has full relative
/// precision however near w comes to 1.
///
/// # Errors
/// [`Error::Domain`] for a negative concentration or fewer than two dimensions,
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
    let mut out = vec![0.0; n * m];
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
fn turn<T: Real>(row: &mut [T], loc: &[T], norm: f64, complement: f64) {
    let (Some((first, normals)), Some((&head, rest))) = (row.split_first_mut(), loc.split_first())
    else {
        return;
    };
    vectorize(
        #[inline(always)]
        || {
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
        },
    );
}

/// (z . z, z . mu), summed in fixed lanes, segment by segment: with 10^5 elements a single sum
/// would leave the norm of the result off by more than 4e-16.
#[inline(always)]
fn sums<T: Real>(z: &[T], mu: &[T]) -> (f64, f64) {
    let mut total = (0.0, 0.0);
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
        total.0 += square.iter().sum::<f64>();
        total.1 += dot.iter().sum::<f64>();
    }
    total
}
