//! Starts for clusterings and mixtures.

use std::collections::HashSet;

use ndarray::ArrayView2;

use crate::linalg::{Lanes, Rows, skinny};
use crate::memory::zeros;
use crate::parallel::for_each_chunk;
use crate::random::{Key, Stream};
use crate::simd::{maximum, vectorize};
use crate::{Control, Error};

/// Picks rows of the unit vectors `x` as seeds of a clustering with `k` clusters: more than `k`, to be
/// merged later.
///
/// The first round draws `k` different rows uniformly. Each further one draws `k` rows at once, with
/// probability proportional to 1 - cos of the angle to the nearest seed so far, half the squared
/// distance: k-means|| (Bahmani et al. 2012) on the sphere. `x` is read once a round. Returns the
/// seeds in rising order, each once; `k` at least.
///
/// # Errors
/// [`Error::Shape`] where there are fewer than `k` rows; [`Error::Cancelled`].
pub fn spherical_seeds<T: Lanes>(
    x: Rows<'_, T>,
    k: usize,
    n_rounds: usize,
    key: Key,
    control: &Control,
) -> Result<Vec<usize>, Error> {
    let n = x.n_rows();
    if n < k {
        return Err(Error::Shape {
            name: "x",
            expected: format!("at least {k} rows, one a cluster"),
            got: vec![n, x.n_columns()],
        });
    }
    let mut stream = Stream::new(key, 0);
    let mut closest = vec![f64::INFINITY; n];
    let mut fresh = different(n, k, &mut stream);
    let mut seeds = fresh.clone();
    for _ in 1..n_rounds {
        lower(&mut closest, x, &fresh, control)?;
        for &seed in &fresh {
            // Exactly, whatever the rounding: no row is drawn twice.
            closest[seed] = 0.0;
        }
        fresh = draw(&closest, k, &mut stream);
        if fresh.is_empty() {
            break;
        }
        seeds.extend(&fresh);
    }
    seeds.sort_unstable();
    Ok(seeds)
}

/// Joins clusters of directions, the cheapest pair first, until `k` are left; returns the number of
/// the cluster, below `k`, that each has gone to.
///
/// Column j of `resultants`, of shape (d, m), is the sum of the unit vectors of cluster j. Spherical
/// k-means maximises the sum of the norms |S|, so joining two costs |S| + |S'| - |S + S'|: Ward's
/// method (1963) on the sphere. Cost O(m^2 d + m^3).
///
/// # Errors
/// [`Error::Shape`] where there are fewer than `k` clusters, or none; [`Error::Cancelled`].
pub fn merge_directions(
    resultants: ArrayView2<'_, f64>,
    k: usize,
    control: &Control,
) -> Result<Vec<usize>, Error> {
    let (d, m) = resultants.dim();
    if m < k || k == 0 {
        return Err(Error::Shape {
            name: "resultants",
            expected: format!("(d, m) with m at least {}", k.max(1)),
            got: vec![d, m],
        });
    }
    // Scalar products of all pairs: those of sums follow without looking at the vectors again.
    let stride = skinny::padded::<f64>(m);
    let columns: Vec<f64> = resultants.iter().copied().collect();
    let mut padded = zeros::<f64>(&[d, stride])?;
    for (padded, row) in padded.chunks_exact_mut(stride).zip(columns.chunks_exact(m)) {
        padded[..m].copy_from_slice(row);
    }
    let mut dots = zeros::<f64>(&[m, stride])?;
    skinny::transpose_multiply_add(&columns, m, &padded, stride, &mut dots);

    let mut cluster: Vec<usize> = (0..m).collect();
    let mut alive = cluster.clone();
    while alive.len() > k {
        control.check()?;
        let square = |a: usize| dots[a * stride + a];
        let mut best = (f64::INFINITY, 0, 1);
        for (i, &a) in alive.iter().enumerate() {
            for (j, &b) in alive.iter().enumerate().skip(i + 1) {
                // Rounding may make the square of two opposite ones negative.
                let joined = (square(a) + square(b) + 2.0 * dots[a * stride + b]).max(0.0);
                let loss = square(a).sqrt() + square(b).sqrt() - joined.sqrt();
                if loss < best.0 {
                    best = (loss, i, j);
                }
            }
        }
        let (a, b) = (alive[best.1], alive.remove(best.2));
        for c in 0..m {
            dots[a * stride + c] += dots[b * stride + c];
        }
        for c in 0..m {
            dots[c * stride + a] += dots[c * stride + b];
        }
        cluster.iter_mut().filter(|cluster| **cluster == b).for_each(|cluster| *cluster = a);
    }
    // `alive` rises: a number's place in it is its new number.
    Ok(cluster.iter().map(|a| alive.partition_point(|other| other < a)).collect())
}

/// `k` different integers below `n`, by Floyd's algorithm.
fn different(n: usize, k: usize, stream: &mut Stream) -> Vec<usize> {
    let mut chosen = HashSet::with_capacity(k);
    for top in n - k..n {
        let i = stream.below(top as u64 + 1) as usize;
        if !chosen.insert(i) {
            chosen.insert(top);
        }
    }
    let mut chosen: Vec<usize> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

/// At most `m` different indices, drawn with probabilities proportional to `weights`.
fn draw(weights: &[f64], m: usize, stream: &mut Stream) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let mut targets: Vec<f64> = (0..m).map(|_| total * stream.uniform()).collect();
    targets.sort_by(f64::total_cmp);
    let mut targets = targets.into_iter().peekable();
    let mut picked = Vec::with_capacity(m);
    let mut sum = 0.0;
    for (i, &weight) in weights.iter().enumerate() {
        sum += weight;
        if weight > 0.0 && targets.next_if(|&target| target < sum).is_some() {
            picked.push(i);
            while targets.next_if(|&target| target < sum).is_some() {}
        }
    }
    picked
}

/// Lowers `closest` to 1 - cos of the angles between all rows and the nearest of `seeds`.
fn lower<T: Lanes>(
    closest: &mut [f64],
    x: Rows<'_, T>,
    seeds: &[usize],
    control: &Control,
) -> Result<(), Error> {
    let m = seeds.len();
    let stride = skinny::padded::<T>(m);
    let mut w = zeros::<T>(&[x.n_columns(), stride])?;
    // The padding repeats the last seed, which changes no maximum.
    for k in 0..stride {
        x.scatter(seeds[k.min(m - 1)], &mut w, stride, k);
    }
    for_each_chunk(closest, x.block(), control, |start, closest| {
        let mut cosines = vec![0.0; closest.len() * stride];
        x.multiply(start..start + closest.len(), &w, stride, &mut cosines);
        vectorize(
            #[inline(always)]
            || {
                for (closest, cosines) in closest.iter_mut().zip(cosines.chunks_exact(stride)) {
                    let distance = (1.0 - maximum(cosines)).max(0.0);
                    *closest = closest.min(distance);
                }
            },
        );
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr2};

    use super::*;

    #[test]
    fn far_clusters_are_all_found() {
        // Five bundles of rows around the axes of a space, the last of two rows only.
        let x = Array2::from_shape_fn((402, 5), |(i, j)| {
            let noise = (((i * 31 + j * 17) % 101) as f64 - 50.0) * 1e-6;
            let axis = if i < 400 { i % 4 } else { 4 };
            if axis == j { 1.0 } else { noise }
        });
        let rows = Rows::dense(x.view()).unwrap();
        for seed in 0..50 {
            let seeds =
                spherical_seeds(rows, 5, 3, Key::new(seed), &Control::sequential()).unwrap();
            assert!((5..=15).contains(&seeds.len()));
            assert!(seeds.is_sorted_by(|a, b| a < b), "each once");
            let found = |axis| seeds.iter().any(|&i| x[[i, axis]] > 0.5);
            assert!((0..5).all(found), "seed {seed}");
        }
    }

    #[test]
    fn copies_of_one_row_make_up_the_number() {
        let x = Array2::from_shape_fn((6, 2), |(_, j)| if j == 0 { 1.0 } else { 0.0 });
        let rows = Rows::dense(x.view()).unwrap();
        let control = Control::sequential();
        assert_eq!(spherical_seeds(rows, 4, 3, Key::new(1), &control).unwrap().len(), 4);
        assert_eq!(spherical_seeds(rows, 6, 3, Key::new(1), &control).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert!(spherical_seeds(rows, 7, 3, Key::new(1), &control).is_err());
    }

    #[test]
    fn the_cheapest_pairs_are_joined_first() {
        // Small angles between long vectors cost more than larger ones between short vectors.
        let resultants = arr2(&[[100.0, 99.0, 0.0, 0.1, -1.0], [0.0, 14.0, 2.0, 1.0, 0.0]]);
        let merge = |k| merge_directions(resultants.view(), k, &Control::sequential()).unwrap();
        assert_eq!(merge(5), [0, 1, 2, 3, 4]);
        assert_eq!(merge(4), [0, 1, 2, 2, 3]);
        // |(100, 0)| + |(99, 14)| - |(199, 14)| = 0.49, less than 1.0 for (-1, 0) and (0.1, 3).
        assert_eq!(merge(3), [0, 0, 1, 1, 2]);
        assert_eq!(merge(1), [0; 5]);
        assert!(merge_directions(resultants.view(), 6, &Control::sequential()).is_err());
        let copies = Array2::ones((3, 20));
        let joined = merge_directions(copies.view(), 2, &Control::sequential()).unwrap();
        assert_eq!(joined.iter().max(), Some(&1));
    }
}
