//! Starts for clusterings and mixtures.

use crate::linalg::skinny;
use crate::linalg::{Lanes, Rows};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::random::{Key, Stream};
use crate::{Control, Error};

/// Picks `k` of the unit vectors `x` as starting directions, by greedy spherical k-means++.
///
/// The first is drawn uniformly, each further one with probability proportional to 1 - cos of the
/// angle to the nearest so far (half the squared distance, so this is Arthur and Vassilvitskii's
/// D^2 sampling on the sphere); of 2 + ln k candidates drawn so, the one that lowers the sum of
/// 1 - cos most is kept. `x` is read once a direction, whatever the number of candidates. Where
/// fewer than `k` rows are distinct, rows drawn uniformly make up the number.
///
/// # Errors
/// [`Error::Shape`] where there are fewer than `k` rows; [`Error::Cancelled`].
pub fn spherical_plus_plus<T: Lanes>(
    x: Rows<'_, T>,
    k: usize,
    key: Key,
    control: &Control,
) -> Result<Vec<usize>, Error> {
    let n = x.n_rows();
    if n < k {
        return Err(Error::Shape {
            name: "x",
            expected: format!("at least {k} rows, one a component"),
            got: vec![n, x.n_columns()],
        });
    }
    let mut stream = Stream::new(key, 0);
    let n_candidates = 2 + (k as f64).ln() as usize;
    let mut chosen = Vec::with_capacity(k);
    let mut closest = vec![f64::INFINITY; n];
    while chosen.len() < k {
        let candidates = if chosen.is_empty() {
            vec![stream.below(n as u64) as usize]
        } else {
            draw(&closest, n_candidates, &mut stream)
        };
        let m = candidates.len();
        let gaps = cosine_gaps(x, &candidates, control)?;
        let potentials = reduce_blocks(
            n,
            1 << 14,
            control,
            |range| {
                let mut sums = vec![0.0; m];
                for i in range {
                    for (sum, gap) in sums.iter_mut().zip(&gaps[i * m..]) {
                        *sum += gap.min(closest[i]);
                    }
                }
                Ok(sums)
            },
            |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                a
            },
        )?;
        let best = potentials
            .and_then(|sums| (0..m).min_by(|&a, &b| sums[a].total_cmp(&sums[b])))
            .unwrap_or(0);
        for (closest, gaps) in closest.iter_mut().zip(gaps.chunks_exact(m)) {
            *closest = closest.min(gaps[best]);
        }
        // Exactly, whatever the rounding: no row is drawn twice while others are left.
        closest[candidates[best]] = 0.0;
        chosen.push(candidates[best]);
    }
    Ok(chosen)
}

/// `m` indices drawn with probabilities proportional to `weights`; uniformly where all are zero.
fn draw(weights: &[f64], m: usize, stream: &mut Stream) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return vec![stream.below(weights.len() as u64) as usize];
    }
    let mut targets: Vec<f64> = (0..m).map(|_| total * stream.uniform()).collect();
    targets.sort_by(f64::total_cmp);
    let mut picked = Vec::with_capacity(m);
    let (mut sum, mut last) = (0.0, 0);
    for (i, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            sum += weight;
            last = i;
            while picked.len() < m && targets[picked.len()] < sum {
                picked.push(i);
            }
        }
    }
    // The sum in this order may round to just below the total: the rest falls to the last row.
    picked.resize(m, last);
    picked.dedup();
    picked
}

/// 1 - cos of the angles between all rows and those in `candidates`: n rows of m.
fn cosine_gaps<T: Lanes>(
    x: Rows<'_, T>,
    candidates: &[usize],
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let m = candidates.len();
    let stride = skinny::padded::<T>(m);
    let mut w = vec![T::from_f64(0.0); x.n_columns() * stride];
    for (k, &i) in candidates.iter().enumerate() {
        x.scatter(i, &mut w, stride, k);
    }
    let block = x.block();
    let mut gaps = vec![0.0; x.n_rows() * m];
    for_each_chunk(&mut gaps, block * m, control, |start, gaps| {
        let (start, rows) = (start / m, gaps.len() / m);
        let mut cosines = vec![0.0; rows * stride];
        x.multiply(start..start + rows, &w, stride, &mut cosines);
        for (gaps, cosines) in gaps.chunks_exact_mut(m).zip(cosines.chunks_exact(stride)) {
            for (gap, cosine) in gaps.iter_mut().zip(cosines) {
                *gap = (1.0 - cosine).max(0.0);
            }
        }
        Ok(())
    })?;
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn one_row_of_each_far_cluster_is_picked() {
        // Five bundles of rows around the axes of a space: any two are a right angle apart.
        let x = Array2::from_shape_fn((500, 5), |(i, j)| {
            let noise = (((i * 31 + j * 17) % 101) as f64 - 50.0) * 1e-5;
            if i % 5 == j { 1.0 } else { noise }
        });
        let rows = Rows::dense(x.view()).unwrap();
        for seed in 0..20 {
            let picked =
                spherical_plus_plus(rows, 5, Key::new(seed), &Control::sequential()).unwrap();
            let mut bundles: Vec<_> = picked.iter().map(|i| i % 5).collect();
            bundles.sort_unstable();
            assert_eq!(bundles, [0, 1, 2, 3, 4], "seed {seed}");
        }
    }

    #[test]
    fn copies_of_one_row_make_up_the_number() {
        let x = Array2::from_shape_fn((6, 2), |(_, j)| if j == 0 { 1.0 } else { 0.0 });
        let rows = Rows::dense(x.view()).unwrap();
        let picked = spherical_plus_plus(rows, 4, Key::new(1), &Control::sequential()).unwrap();
        assert_eq!(picked.len(), 4);
        assert!(spherical_plus_plus(rows, 7, Key::new(1), &Control::sequential()).is_err());
    }
}
