//! Draws of rows, each decided by a number that belongs to the row.

use ndarray::ArrayView1;

use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::random::{Key, Stream};
use crate::simd::vectorize;
use crate::{Control, Error};

/// Rows decided together, a multiple of 64.
const BLOCK: usize = 4096;
/// Passes after which the rows that are kept for certain are found by sorting.
const PASSES: usize = 24;

/// One uniform variate of (0, 1) for each of the rows from `start`: it depends on the key and the number
/// of the row alone.
///
/// # Errors
/// [`Error::Cancelled`]
pub fn row_uniforms(key: Key, start: u64, n: usize, control: &Control) -> Result<Vec<f64>, Error> {
    let mut out = vec![0.0; n];
    for_each_chunk(&mut out, BLOCK, control, |offset, out| {
        fill(key, start + offset as u64, out);
        Ok(())
    })?;
    Ok(out)
}

fn fill(key: Key, start: u64, out: &mut [f64]) {
    let before = (start % 64) as usize;
    let mut stream = Stream::skipping(key, 0, start - before as u64);
    if before == 0 {
        return stream.fill_uniform(out);
    }
    let mut all = vec![0.0; before + out.len()];
    stream.fill_uniform(&mut all);
    out.copy_from_slice(&all[before..]);
}

/// The factor `c` for which the sum of `min(1, c s)` is `size`, which must be below the number of
/// positive scores; scores must be nonnegative and finite.
///
/// # Errors
/// [`Error::Cancelled`]
pub fn water_level(
    scores: ArrayView1<'_, f64>,
    size: f64,
    control: &Control,
) -> Result<f64, Error> {
    let copy: Vec<f64>;
    let scores = if let Some(slice) = scores.to_slice() {
        slice
    } else {
        copy = scores.to_vec();
        &copy
    };
    let mut level = 0.0;
    for _ in 0..PASSES {
        // Those at or above 1 stay there: the level only rises.
        let (rest, full) = below(scores, 1.0 / level, control)?;
        let next = (size - full) / rest;
        if next <= level {
            return Ok(level);
        }
        level = next;
    }
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let mut rest = vec![0.0; sorted.len() + 1];
    for (i, score) in sorted.iter().enumerate().rev() {
        rest[i] = rest[i + 1] + score;
    }
    // The first k are kept for certain where the level of the others does not reach the next.
    let full = (0..sorted.len()).find(|&k| (size - k as f64) / rest[k] * sorted[k] < 1.0);
    let full = full.unwrap_or(0);
    Ok((size - full as f64) / rest[full])
}

/// The sum of the scores below a bound, and the number of the others.
fn below(scores: &[f64], bound: f64, control: &Control) -> Result<(f64, f64), Error> {
    let block = |rows: core::ops::Range<usize>| {
        let (mut sums, mut counts) = ([0.0; 8], [0.0; 8]);
        vectorize(
            #[inline(always)]
            || {
                for chunk in scores[rows.clone()].chunks(8) {
                    for (i, &score) in chunk.iter().enumerate() {
                        sums[i] += if score < bound { score } else { 0.0 };
                        counts[i] += if score < bound { 0.0 } else { 1.0 };
                    }
                }
            },
        );
        Ok((sums.iter().sum::<f64>(), counts.iter().sum::<f64>()))
    };
    let merge = |a: (f64, f64), b: (f64, f64)| (a.0 + b.0, a.1 + b.1);
    Ok(reduce_blocks(scores.len(), BLOCK, control, block, merge)?.unwrap_or_default())
}

/// The rows that are kept, each with probability `min(1, level s)` on its own: row i, which is number
/// `start + i` of all, where its uniform variate lies below.
///
/// # Errors
/// [`Error::Cancelled`]
pub fn bernoulli(
    scores: ArrayView1<'_, f64>,
    level: f64,
    key: Key,
    start: u64,
    control: &Control,
) -> Result<Vec<i64>, Error> {
    let block = |rows: core::ops::Range<usize>| {
        let mut uniforms = vec![0.0; rows.len()];
        fill(key, start + rows.start as u64, &mut uniforms);
        let mut kept = Vec::new();
        for (i, u) in rows.zip(uniforms) {
            if u < level * scores[i] {
                kept.push((start + i as u64).cast_signed());
            }
        }
        Ok(kept)
    };
    let merge = |mut a: Vec<i64>, mut b: Vec<i64>| {
        a.append(&mut b);
        a
    };
    Ok(reduce_blocks(scores.len(), BLOCK, control, block, merge)?.unwrap_or_default())
}

/// The rows that the ordered pivotal method keeps: row i with probability `p_i`, and together as many
/// as the probabilities sum up to, which must be a whole number.
///
/// Deville and Tillé (1998): of two rows one settles, kept or not, and the other carries what is left.
/// O(n), on the calling thread.
///
/// # Errors
/// [`Error::Cancelled`]
pub fn pivotal(
    probabilities: ArrayView1<'_, f64>,
    key: Key,
    control: &Control,
) -> Result<Vec<i64>, Error> {
    let mut kept = Vec::new();
    let mut uniforms = vec![0.0; BLOCK];
    let (mut carrier, mut carried) = (0, 0.0_f64);
    for start in (0..probabilities.len()).step_by(BLOCK) {
        control.check()?;
        let rows = start..(start + BLOCK).min(probabilities.len());
        fill(key, start as u64, &mut uniforms);
        for (row, &u) in rows.zip(&uniforms) {
            let p = probabilities[row];
            if p >= 1.0 {
                kept.push(row as u64);
                continue;
            }
            let sum = carried + p;
            if sum < 1.0 {
                if u * sum < p {
                    carrier = row;
                }
                carried = sum;
            } else {
                let (settled, other) =
                    if u * (2.0 - sum) < 1.0 - carried { (row, carrier) } else { (carrier, row) };
                kept.push(settled as u64);
                carrier = other;
                carried = sum - 1.0;
            }
        }
        control.advance(BLOCK as u64);
    }
    if carried > 0.5 {
        kept.push(carrier as u64); // 1 but for rounding
    }
    kept.sort_unstable();
    Ok(kept.into_iter().map(u64::cast_signed).collect())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, arr1};

    use super::*;

    #[test]
    fn the_uniforms_of_rows_do_not_depend_on_where_a_chunk_begins() {
        let control = Control::new();
        let key = Key::new(3);
        let all = row_uniforms(key, 0, 20_000, &control).unwrap();
        for (start, n) in [(0, 1), (1, 70), (63, 2), (64, 64), (4095, 9000), (12_345, 7655)] {
            let part = row_uniforms(key, start as u64, n, &control).unwrap();
            assert_eq!(part, all[start..start + n]);
        }
    }

    #[test]
    fn the_level_makes_the_expected_size() {
        let control = Control::new();
        let geometric: Vec<f64> = (0..200).map(|i| 0.7_f64.powi(i)).collect();
        for (scores, size) in [
            (vec![1.0, 1.0, 1.0, 1.0], 2.0),
            (vec![10.0, 1.0, 0.0, 1.0], 2.0),
            (geometric, 60.0),
            (vec![1e-200, 1e200, 1e-200], 1.5),
        ] {
            let scores = Array1::from_vec(scores);
            let level = water_level(scores.view(), size, &control).unwrap();
            let expected: f64 = scores.iter().map(|s| (level * s).min(1.0)).sum();
            assert!((expected - size).abs() < 1e-12 * size, "{expected} {size}");
        }
    }

    #[test]
    fn pivotal_draws_have_their_size_and_keep_what_is_certain() {
        let probabilities = arr1(&[0.3, 1.0, 0.7, 0.5, 0.25, 0.25]);
        let mut counts = [0.0; 6];
        for seed in 0..20_000 {
            let kept = pivotal(probabilities.view(), Key::new(seed), &Control::new()).unwrap();
            assert_eq!(kept.len(), 3);
            for row in kept {
                counts[row as usize] += 1.0;
            }
        }
        for (count, p) in counts.into_iter().zip(&probabilities) {
            // Five standard deviations.
            assert!((count / 20_000.0 - p).abs() < 5.0 * (0.25_f64 / 20_000.0).sqrt());
        }
    }
}
