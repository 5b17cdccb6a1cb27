//! Sparse sign embeddings: every input row goes to a few random rows of the result, with random signs.
//!
//! With one row it is `CountSketch` (Charikar, Chen and Farach-Colton 2002), with several the sparse
//! embedding of Nelson and Nguyen (2013): entries are `+-1 / sqrt(zeta)`.

use core::ops::Range;

use ndarray::{Array2, ArrayView2};

use crate::linalg::{Lanes, Rows};
use crate::memory::{room, shaped, zeros};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::random::{Key, Stream};
use crate::simd::vectorize;
use crate::{Control, Error};

/// Input rows whose places come from one stream.
const GROUP: usize = 64;
/// Least input rows whose contributions are summed before they are added up.
const ROWS: usize = 4096;

/// A sparse sign embedding.
#[derive(Debug, Clone, Copy)]
pub struct SparseSign {
    /// Number of rows of the result.
    pub n_rows: usize,
    /// Entries of a column that are not zero, at most `n_rows`.
    pub n_nonzeros: usize,
    /// The key of places and signs.
    pub key: Key,
}

/// Where an input row goes, and its sign.
type Place = (u32, f64);

impl SparseSign {
    fn check(&self) -> Result<(), Error> {
        super::check_n_rows(self.n_rows)?;
        if u32::try_from(self.n_rows).is_err() {
            let (expected, got) = ("below 2^32", self.n_rows as f64);
            return Err(Error::Domain { name: "n_rows", expected, got });
        }
        if !(1..=self.n_rows).contains(&self.n_nonzeros) {
            let (expected, got) = ("at least 1 and at most 'n_rows'", self.n_nonzeros as f64);
            return Err(Error::Domain { name: "n_nonzeros", expected, got });
        }
        Ok(())
    }

    /// The distinct places of the rows of one group, one row after the other.
    fn places(&self, group: usize) -> Vec<Place> {
        let (m, zeta) = (self.n_rows as u64, self.n_nonzeros);
        let mut stream = Stream::new(self.key, group as u64);
        let mut places: Vec<Place> = Vec::with_capacity(GROUP * zeta);
        for row in 0..GROUP {
            // Floyd's algorithm: every set of places is equally likely.
            for last in m - zeta as u64..m {
                let word = stream.next_u64();
                // 63 bits for the place, whose bias is below 2^-31, and one for the sign.
                let drawn = ((u128::from(word >> 1) * u128::from(last + 1)) >> 63) as u32;
                let taken = places[row * zeta..].iter().any(|&(place, _)| place == drawn);
                let sign = f64::from(1 - 2 * (word & 1) as i32);
                places.push((if taken { last as u32 } else { drawn }, sign));
            }
        }
        places
    }

    /// Calls `body(rows, places)` for the input rows of a range, group by group; the places of one row
    /// follow those of the other.
    fn for_each(&self, range: Range<usize>, mut body: impl FnMut(Range<usize>, &[Place])) {
        for group in range.start / GROUP..range.end.div_ceil(GROUP) {
            let places = self.places(group);
            let first = group * GROUP;
            let rows = first.max(range.start)..(first + GROUP).min(range.end);
            let at = (rows.start - first) * self.n_nonzeros..(rows.end - first) * self.n_nonzeros;
            body(rows, &places[at]);
        }
    }

    /// The places and signs of the columns in `range`, each of shape (columns, nonzeros).
    ///
    /// # Errors
    /// [`Error::Domain`], [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
    pub fn columns(
        &self,
        range: Range<usize>,
        control: &Control,
    ) -> Result<(Array2<u32>, Array2<f64>), Error> {
        self.check()?;
        let shape = [range.len(), self.n_nonzeros];
        super::check_part("range", range.start, shape, super::LONGEST)?;
        let (mut rows, mut signs) = (room(&shape)?, room(&shape)?);
        for first in range.clone().step_by(ROWS) {
            control.check()?;
            self.for_each(first..range.end.min(first + ROWS), |_, places| {
                rows.extend(places.iter().map(|place| place.0));
                signs.extend(places.iter().map(|place| place.1));
            });
        }
        Ok((shaped(shape, rows), shaped(shape, signs)))
    }

    fn scale(&self) -> f64 {
        (self.n_nonzeros as f64).sqrt().recip()
    }

    /// What rows `start..` of the input, which are `x`, add to the product of the sketch with it.
    ///
    /// # Errors
    /// [`Error::Domain`], [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
    pub fn apply<T: Lanes>(
        &self,
        x: Rows<'_, T>,
        start: usize,
        control: &Control,
    ) -> Result<Array2<f64>, Error> {
        let (m, n, d) = (self.n_rows, x.n_rows(), x.n_columns());
        self.check()?;
        super::check_part("x", start, [n, d], super::LONGEST)?;
        if d == 0 {
            return Ok(Array2::zeros((m, 0)));
        }
        let part = |range: Range<usize>| {
            let mut sums = zeros(&[m, d])?;
            let end = start + range.end;
            for at in (start + range.start..end).step_by(ROWS) {
                control.check()?;
                self.for_each(at..end.min(at + ROWS), |rows, places| match x {
                    Rows::Dense { values, .. } => {
                        let values = &values[(rows.start - start) * d..(rows.end - start) * d];
                        scatter_dense(&mut sums, values, d, places, self.n_nonzeros);
                    }
                    Rows::Sparse(csr) => {
                        for (i, places) in rows.zip(places.chunks_exact(self.n_nonzeros)) {
                            let (columns, values) = csr.row(i - start);
                            for &(place, sign) in places {
                                let sums = &mut sums[place as usize * d..(place as usize + 1) * d];
                                for (&column, &value) in columns.iter().zip(values) {
                                    sums[column as usize] += sign * value.into();
                                }
                            }
                        }
                    }
                });
            }
            Ok(sums)
        };
        let found = reduce_blocks(n, ROWS.max(8 * m), control, part, super::add)?;
        let mut sums = found.map_or_else(|| zeros(&[m, d]), Ok)?;
        super::scale(&mut sums, self.scale());
        Ok(shaped((m, d), sums))
    }

    /// The product of the transposed sketch of `n` input rows with `y`, of shape (m, k).
    ///
    /// # Errors
    /// [`Error::Domain`], [`Error::Shape`], [`Error::Memory`], [`Error::Cancelled`]
    pub fn apply_transpose(
        &self,
        y: ArrayView2<'_, f64>,
        n: usize,
        control: &Control,
    ) -> Result<Array2<f64>, Error> {
        self.check()?;
        let (_, k) = super::check_rows(y, self.n_rows)?;
        let (mut out, scale) = (zeros(&[n, k])?, self.scale());
        for_each_chunk(&mut out, ROWS * k.max(1), control, |at, chunk| {
            let first = at / k;
            self.for_each(first..first + chunk.len() / k, |rows, places| {
                let out = chunk[(rows.start - first) * k..(rows.end - first) * k].chunks_mut(k);
                for (out, places) in out.zip(places.chunks_exact(self.n_nonzeros)) {
                    for &(place, sign) in places {
                        for (out, y) in out.iter_mut().zip(y.row(place as usize)) {
                            *out += scale * sign * y;
                        }
                    }
                }
            });
            Ok(())
        })?;
        Ok(shaped((n, k), out))
    }
}

/// Adds rows of `d` columns, with their signs, to the rows of `sums` that they go to.
fn scatter_dense<T: Lanes>(
    sums: &mut [f64],
    rows: &[T],
    d: usize,
    places: &[Place],
    n_nonzeros: usize,
) {
    vectorize(
        #[inline(always)]
        || {
            for (row, places) in rows.chunks_exact(d).zip(places.chunks_exact(n_nonzeros)) {
                for &(place, sign) in places {
                    let sums = &mut sums[place as usize * d..(place as usize + 1) * d];
                    for (sum, &value) in sums.iter_mut().zip(row) {
                        *sum += sign * value.into();
                    }
                }
            }
        },
    );
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;
    use crate::linalg::Csr;

    #[test]
    fn places_of_a_column_are_distinct_and_uniform() {
        let sketch = SparseSign { n_rows: 5, n_nonzeros: 3, key: Key::new(1) };
        let (rows, signs) = sketch.columns(10..60_010, &Control::new()).unwrap();
        let mut counts = [0.0; 5];
        for row in rows.rows() {
            assert!(row[0] != row[1] && row[1] != row[2] && row[0] != row[2]);
            row.iter().for_each(|&place| counts[place as usize] += 1.0);
        }
        // Variance of a count: n p (1 - p) with p = 3/5; 4.9 deviations are passed once in 10^6.
        let bound = 4.9 * (60_000.0_f64 * 0.24).sqrt();
        assert!(counts.iter().all(|c: &f64| (c - 36_000.0).abs() < bound), "{counts:?}");
        assert!(signs.sum().abs() < 4.9 * 180_000.0_f64.sqrt());
        assert!(signs.iter().all(|s| s.abs() == 1.0));
    }

    #[test]
    fn dense_and_sparse_inputs_whole_or_in_parts_give_the_same_sums() {
        let (n, d) = (9000, 4);
        let x: Vec<f64> = (0..n * d).map(|i| ((i * 31 + 5) % 3) as f64 - 1.0).collect();
        let entries: Vec<usize> = (0..n * d).filter(|&i| x[i] != 0.0).collect();
        let values: Vec<f64> = entries.iter().map(|&i| x[i]).collect();
        let columns: Vec<u32> = entries.iter().map(|&i| (i % d) as u32).collect();
        let ends = (0..=n).map(|row| entries.partition_point(|&i| i < row * d) as u64);
        let indptr: Vec<u64> = ends.collect();
        for (m, zeta) in [(16, 4), (3000, 1)] {
            let sketch = SparseSign { n_rows: m, n_nonzeros: zeta, key: Key::new(2) };
            let rows = |range: Range<usize>| Rows::Dense {
                values: &x[range.start * d..range.end * d],
                n_columns: d,
            };
            let whole = sketch.apply(rows(0..n), 0, &Control::new()).unwrap();
            let csr = Csr::new(&indptr, &columns, &values, d).unwrap();
            assert_eq!(sketch.apply(Rows::Sparse(csr), 0, &Control::new()).unwrap(), whole);
            let sum = [0..100, 100..5000, 5000..n]
                .map(|range| sketch.apply(rows(range.clone()), range.start, &Control::sequential()))
                .into_iter()
                .fold(Array2::<f64>::zeros((m, d)), |sum, part| sum + part.unwrap());
            assert_eq!(sum, whole);
        }
    }
}
