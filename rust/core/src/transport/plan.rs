//! What is read off a plan, row by row: it is never formed unless it is asked for.

use ndarray::{Array2, ArrayView2};

use super::cost::{Clouds, Cost, LANES};
use super::rows::{
    GROUP, Gibbs, Potentials, add_rows, block_size, exponentials, exponentials_with, group_size,
    largest, sum_of,
};
use crate::linalg::{Metric, Points};
use crate::memory::{shaped, zeros};
use crate::parallel::{for_each_chunk, reduce_blocks};
use crate::simd::{self, larger, vectorize, vectorize_with};
use crate::{Control, Error, Real};

/// A plan by its cost, its epsilon and its scaled potentials.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a, C> {
    /// Costs, shape (n, m).
    pub cost: &'a C,
    /// Strength of the entropy.
    pub epsilon: f64,
    /// Where `P_ij = exp(phi_i + gamma_j - C_ij / epsilon)`.
    pub potentials: &'a Potentials,
}

/// Sums over a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    /// `P 1`, shape (n,).
    pub rows: Vec<f64>,
    /// `P' 1`, shape (m,).
    pub columns: Vec<f64>,
    /// `<P, C>`, forbidden pairs left out.
    pub cost: f64,
}

impl Sums {
    /// Those of rows that follow one another.
    fn merge(mut self, other: Self) -> Self {
        self.rows.extend(other.rows);
        self.columns.iter_mut().zip(&other.columns).for_each(|(a, b)| *a += b);
        self.cost += other.cost;
        self
    }
}

/// How the cost of a plan between two clouds changes with their points, the plan held.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionGradient {
    /// `sum_j P_ij grad_1 c(x_i, y_j)`, shape (n, d).
    pub x: Array2<f64>,
    /// `sum_i P_ij grad_2 c(x_i, y_j)`, shape (m, d).
    pub y: Array2<f64>,
}

/// The entries of a plan that reach a threshold, row by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparsePlan {
    /// Where each row starts, and where the last ends: n + 1 numbers.
    pub indptr: Vec<usize>,
    /// Columns.
    pub indices: Vec<usize>,
    /// Values.
    pub values: Vec<f64>,
}

/// What turns a plan with small marginal errors into one without (Altschuler, Weed and Rigollet 2017,
/// algorithm 2): `diag(x) P diag(y) + u v'`.
#[derive(Debug, Clone, Copy)]
pub struct Rounding<'a> {
    /// At most 1, shape (n,).
    pub x: &'a [f64],
    /// At most 1, shape (m,).
    pub y: &'a [f64],
    /// Nonnegative, shape (n,).
    pub u: &'a [f64],
    /// Nonnegative, shape (m,).
    pub v: &'a [f64],
}

impl<C: Cost> Plan<'_, C> {
    /// Calls `visit(accumulator, i, row, row sum)` on every row; accumulators of blocks are merged in a
    /// fixed tree.
    fn fold<A: Send>(
        &self,
        start: impl Fn() -> A + Sync,
        visit: impl Fn(&mut A, usize, &[f64], f64) + Sync,
        merge: impl Fn(A, A) -> A + Sync,
        control: &Control,
    ) -> Result<A, Error> {
        let (n, m) = self.cost.shape();
        let found = reduce_blocks(
            n,
            block_size(n),
            control,
            |rows| {
                let (mut total, mut row) = (start(), vec![0.0; m]);
                for i in rows {
                    control.check()?;
                    let sum = self.fill(i, &mut row);
                    visit(&mut total, i, &row, sum);
                }
                Ok(total)
            },
            merge,
        )?;
        Ok(found.unwrap_or_else(start))
    }

    /// Writes row `i` and returns its sum.
    fn fill(&self, i: usize, row: &mut [f64]) -> f64 {
        let Potentials { phi, gamma } = self.potentials;
        vectorize_with(
            #[inline(always)]
            |on| exponentials(on, self.gibbs(), i, phi[i], gamma, row),
        )
    }

    fn gibbs(&self) -> Gibbs<'_, C> {
        Gibbs { cost: self.cost, scale: 1.0 / self.epsilon }
    }

    /// The plan itself.
    ///
    /// # Errors
    /// [`Error::Memory`]; [`Error::Cancelled`].
    pub fn dense<T: Real>(&self, control: &Control) -> Result<Array2<T>, Error> {
        let (n, m) = self.cost.shape();
        let mut out = zeros::<T>(&[n, m])?;
        for_each_chunk(&mut out, block_size(n) * m, control, |start, rows| {
            let mut row = vec![0.0; m];
            for (k, out) in rows.chunks_exact_mut(m).enumerate() {
                control.check()?;
                let i = start / m + k;
                if let Some(out) = T::as_doubles(out) {
                    self.fill(i, out);
                    continue;
                }
                self.fill(i, &mut row);
                for (out, &value) in out.iter_mut().zip(&row) {
                    *out = T::from_f64(value);
                }
            }
            Ok(())
        })?;
        Ok(shaped((n, m), out))
    }

    /// The entries that are at least `threshold`, and positive.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn sparse(&self, threshold: f64, control: &Control) -> Result<SparsePlan, Error> {
        let mut found = self.fold(
            SparsePlan::default,
            |plan, _, row, _| {
                for (j, &p) in row.iter().enumerate() {
                    if p > 0.0 && p >= threshold {
                        plan.indices.push(j);
                        plan.values.push(p);
                    }
                }
                plan.indptr.push(plan.values.len());
            },
            |mut a, b| {
                let offset = a.values.len();
                a.indptr.extend(b.indptr.iter().map(|end| end + offset));
                a.indices.extend(b.indices);
                a.values.extend(b.values);
                a
            },
            control,
        )?;
        found.indptr.insert(0, 0);
        Ok(found)
    }

    /// Sums over rows, columns and costs.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn sums(&self, control: &Control) -> Result<Sums, Error> {
        let ((n, m), Potentials { phi, gamma }) = (self.cost.shape(), self.potentials);
        let start = || Sums { rows: vec![], columns: vec![0.0; m], cost: 0.0 };
        let size = group_size(m, 4);
        let found = reduce_blocks(
            n,
            block_size(n),
            control,
            |rows| {
                let (mut sums, mut buffer) = (start(), vec![0.0; size * m]);
                let mut costs = [0.0; LANES];
                for first in rows.clone().step_by(size) {
                    control.check()?;
                    let group = first..rows.end.min(first + size);
                    let plan = &mut buffer[..group.len() * m];
                    vectorize_with(
                        #[inline(always)]
                        |on| {
                            for (i, row) in group.clone().zip(plan.chunks_exact_mut(m)) {
                                let total = exponentials_with(
                                    on,
                                    self.gibbs(),
                                    i,
                                    phi[i],
                                    gamma,
                                    row,
                                    #[inline(always)]
                                    |cost, row| {
                                        for l in 0..LANES {
                                            // Where it is infinite the entry is 0.
                                            let cost = -larger(-cost[l], f64::MIN);
                                            costs[l] = row[l].mul_add(cost, costs[l]);
                                        }
                                    },
                                );
                                sums.rows.push(total);
                            }
                            add_rows(&mut sums.columns, &[1.0; GROUP][..group.len()], plan);
                        },
                    );
                }
                sums.cost = sum_of(&costs);
                Ok(sums)
            },
            Sums::merge,
        )?;
        Ok(found.unwrap_or_else(start))
    }

    /// `P v` for `v` of shape (m, k).
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::Cancelled`].
    pub fn apply(&self, v: ArrayView2<'_, f64>, control: &Control) -> Result<Array2<f64>, Error> {
        let ((n, m), k) = (self.cost.shape(), v.ncols());
        check_rows("v", v, m)?;
        let columns: Vec<f64> = v.t().iter().copied().collect();
        let out = self.fold(
            Vec::new,
            |out: &mut Vec<f64>, _, row, _| {
                vectorize(
                    #[inline(always)]
                    || {
                        for column in columns.chunks_exact(m) {
                            out.push(dot(row, column));
                        }
                    },
                );
            },
            |mut a, b| {
                a.extend(b);
                a
            },
            control,
        )?;
        Ok(shaped((n, k), out))
    }

    /// `P' u` for `u` of shape (n, k).
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::Cancelled`].
    pub fn apply_transpose(
        &self,
        u: ArrayView2<'_, f64>,
        control: &Control,
    ) -> Result<Array2<f64>, Error> {
        let ((n, m), k) = (self.cost.shape(), u.ncols());
        check_rows("u", u, n)?;
        let out = self.fold(
            || vec![0.0; k * m],
            |out: &mut Vec<f64>, i, row, _| {
                vectorize(
                    #[inline(always)]
                    || {
                        for (out, &u) in out.chunks_exact_mut(m).zip(u.row(i)) {
                            add_rows(out, &[u], row);
                        }
                    },
                );
            },
            |mut a, b| {
                a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
                a
            },
            control,
        )?;
        Ok(shaped((k, m), out).reversed_axes())
    }

    /// `<Q, C> + epsilon KL(Q | a b')` of the rounded plan `Q`.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn rounded_value(
        &self,
        a: &[f64],
        b: &[f64],
        rounding: Rounding<'_>,
        control: &Control,
    ) -> Result<f64, Error> {
        let Rounding { x, y, u, v } = rounding;
        let m = self.cost.shape().1;
        let value = self.fold(
            || 0.0,
            |total, i, row, _| {
                let mut costs = vec![0.0; m];
                vectorize(
                    #[inline(always)]
                    || self.cost.fill(i, &mut costs),
                );
                for (j, (&p, &cost)) in row.iter().zip(&costs).enumerate() {
                    let (q, independent) = ((x[i] * p).mul_add(y[j], u[i] * v[j]), a[i] * b[j]);
                    if q > 0.0 {
                        *total += q * (cost + self.epsilon * ((q / independent).ln() - 1.0));
                    }
                    *total += self.epsilon * independent;
                }
            },
            |a, b| a + b,
            control,
        )?;
        Ok(value)
    }
}

/// The gradient of `<P, C>` in the points of both clouds, shapes (n, d) and (m, d), at a plan that is
/// held: by the envelope theorem that of the transport's value. Where points, or their coordinates
/// under `cityblock`, coincide, the subgradient 0.
///
/// # Errors
/// [`Error::Shape`] where the dimensions differ; [`Error::Memory`]; [`Error::Cancelled`].
pub fn position_gradient<T: Real>(
    x: ArrayView2<'_, T>,
    y: ArrayView2<'_, T>,
    metric: Metric,
    epsilon: f64,
    potentials: &Potentials,
    control: &Control,
) -> Result<PositionGradient, Error> {
    let cost = &Clouds::new(x, y, metric)?;
    let (plan, points) = (Plan { cost, epsilon, potentials }, &Points::new(y)?);
    let ((n, m), d) = (cost.shape(), points.dim());
    let found = reduce_blocks(
        n,
        block_size(n),
        control,
        |rows| {
            let mut pulls = Pulls::new(m, d);
            let mut weights =
                [(); PULLED].map(|()| vec![[0.0; Points::LANES]; m.div_ceil(Points::LANES)]);
            for first in rows.clone().step_by(PULLED) {
                control.check()?;
                let mut group = vec![[0.0; PULLED]; d];
                for (r, weights) in weights.iter_mut().enumerate() {
                    let weights = &mut weights.as_flattened_mut()[..m];
                    if first + r < rows.end {
                        Pulls::weigh(&plan, metric, first + r, weights);
                        for (group, &value) in group.iter_mut().zip(x.row(first + r)) {
                            group[r] = value.into();
                        }
                    } else {
                        weights.fill(0.0);
                    }
                }
                pulls.add(&group, rows.end - first, points, &weights, metric);
            }
            Ok(pulls)
        },
        Pulls::merge,
    )?
    .unwrap_or_else(|| Pulls::new(m, d));
    let mut in_x = shaped((n, d), found.x);
    let mut in_y = Array2::from_shape_fn((m, d), |(j, k)| {
        -found.y[j / Points::LANES * d + k][j % Points::LANES]
    });
    if metric == Metric::SquaredEuclidean {
        in_x *= 2.0;
        in_y *= 2.0;
    }
    Ok(PositionGradient { x: in_x, y: in_y })
}

/// Rows whose points are compared with a panel while it is at hand.
const PULLED: usize = 4;

/// Panels of points: their coordinates as in [`Points`], or one number for each.
type Panels = Vec<[f64; Points::LANES]>;

/// What a block of rows adds to [`PositionGradient`], but for the sign in `y` and the factor 2 of
/// the squared distance.
struct Pulls {
    x: Vec<f64>,
    y: Panels,
}

impl Pulls {
    fn new(m: usize, d: usize) -> Self {
        Self { x: vec![], y: vec![[0.0; Points::LANES]; m.div_ceil(Points::LANES) * d] }
    }

    /// Writes row `i` of the plan, divided by the distance where that is not squared.
    fn weigh(plan: &Plan<'_, Clouds>, metric: Metric, i: usize, weights: &mut [f64]) {
        plan.fill(i, weights);
        if metric == Metric::Euclidean {
            let mut distances = vec![0.0; weights.len()];
            vectorize(
                #[inline(always)]
                || {
                    plan.cost.fill(i, &mut distances);
                    for (weight, &distance) in weights.iter_mut().zip(&distances) {
                        *weight = if distance > 0.0 { *weight / distance } else { 0.0 };
                    }
                },
            );
        }
    }

    /// Adds at most `n_rows` rows, whose points are `x`, a coordinate after the other.
    fn add(
        &mut self,
        x: &[[f64; PULLED]],
        n_rows: usize,
        y: &Points,
        weights: &[Panels; PULLED],
        metric: Metric,
    ) {
        let mut in_x = vec![[[0.0; 8]; PULLED]; x.len()];
        vectorize(
            #[inline(always)]
            || match metric {
                Metric::Cityblock => add_slopes((x, &mut in_x), (y, &mut self.y), weights, sign),
                _ => add_slopes(
                    (x, &mut in_x),
                    (y, &mut self.y),
                    weights,
                    #[inline(always)]
                    |difference| difference,
                ),
            },
        );
        for r in 0..n_rows.min(PULLED) {
            self.x.extend(in_x.iter().map(|lanes| simd::fold(lanes[r], |a, b| a + b)));
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.x.extend(other.x);
        let pairs = self.y.as_flattened_mut().iter_mut().zip(other.y.as_flattened());
        pairs.for_each(|(a, b)| *a += b);
        self
    }
}

#[inline(always)]
fn sign(value: f64) -> f64 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// Adds `weight slope(x - y)` to both points of every pair of a group of rows with all columns.
#[inline(always)]
fn add_slopes(
    (x, in_x): (&[[f64; PULLED]], &mut [[[f64; 8]; PULLED]]),
    (y, in_y): (&Points, &mut Panels),
    weights: &[Panels; PULLED],
    slope: impl Fn(f64) -> f64,
) {
    for (index, in_y) in in_y.chunks_exact_mut(x.len().max(1)).enumerate() {
        let weights = weights.each_ref().map(
            #[inline(always)]
            |panels| &panels[index],
        );
        for (((x, in_x), y), in_y) in x.iter().zip(&mut *in_x).zip(y.panel(index)).zip(in_y) {
            // Sums of their own, which nothing else may point to, stay in registers.
            let mut sums = *in_x;
            for chunk in 0..Points::LANES / 8 {
                let mut total = [0.0; 8];
                for r in 0..PULLED {
                    for lane in 0..8 {
                        let j = 8 * chunk + lane;
                        let slope = slope(x[r] - y[j]);
                        total[lane] = weights[r][j].mul_add(slope, total[lane]);
                        sums[r][lane] = weights[r][j].mul_add(slope, sums[r][lane]);
                    }
                }
                for lane in 0..8 {
                    in_y[8 * chunk + lane] += total[lane];
                }
            }
            *in_x = sums;
        }
    }
}

/// `out[k, i] = log sum_j exp(v[k, j] - C_ij / epsilon)` for every row of `v`, shape (k, m): the product
/// with the kernel `exp(-C / epsilon)` in the log domain, minus infinity where nothing is reached.
///
/// # Errors
/// [`Error::Shape`]; [`Error::Cancelled`].
pub fn log_kernel_sums<C: Cost>(
    cost: &C,
    epsilon: f64,
    v: ArrayView2<'_, f64>,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let ((n, m), k) = (cost.shape(), v.nrows());
    if v.ncols() != m {
        return Err(Error::Shape {
            name: "v",
            expected: format!("(k, {m})"),
            got: v.shape().to_vec(),
        });
    }
    let gibbs = Gibbs { cost, scale: 1.0 / epsilon };
    let v = v.as_standard_layout();
    let mut out = zeros::<f64>(&[n, k])?;
    for_each_chunk(&mut out, block_size(n) * k.max(1), control, |start, out| {
        let mut row = vec![0.0; m];
        for (r, out) in out.chunks_exact_mut(k).enumerate() {
            control.check()?;
            let i = start / k + r;
            for (out, v) in out.iter_mut().zip(v.rows()) {
                let v = v.to_slice().unwrap_or_default();
                vectorize_with(
                    #[inline(always)]
                    |on| {
                        let high = largest(on, gibbs, i, v, &mut row);
                        let shift = if high > f64::NEG_INFINITY { -high } else { 0.0 };
                        *out = high + exponentials(on, gibbs, i, shift, v, &mut row).ln();
                    },
                );
            }
        }
        Ok(())
    })?;
    Ok(shaped((n, k), out).reversed_axes())
}

#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 32];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..32 {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sum_of(&lanes) + rest
}

fn check_rows(name: &'static str, array: ArrayView2<'_, f64>, n: usize) -> Result<(), Error> {
    if array.nrows() == n {
        return Ok(());
    }
    Err(Error::Shape { name, expected: format!("({n}, k)"), got: array.shape().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(n: usize, d: usize, seed: f64) -> Array2<f64> {
        Array2::from_shape_fn((n, d), |(i, k)| ((i * 37 + k * 101) as f64 + seed).sin() * 2.0)
    }

    #[test]
    fn a_gradient_in_the_points_is_the_difference_of_the_costs_at_the_same_plan() {
        for metric in [Metric::SquaredEuclidean, Metric::Euclidean, Metric::Cityblock] {
            let (n, m, d) = (67, 45, 3);
            let (x, y) = (cloud(n, d, 0.3), cloud(m, d, 1.1));
            let potentials = Potentials {
                phi: (0..n).map(|i| (i as f64).cos()).collect(),
                gamma: (0..m).map(|j| (j as f64 * 1.7).sin()).collect(),
            };
            let control = Control::default();
            let found =
                position_gradient(x.view(), y.view(), metric, 0.9, &potentials, &control).unwrap();
            let clouds = Clouds::new(x.view(), y.view(), metric).unwrap();
            let plan = Plan { cost: &clouds, epsilon: 0.9, potentials: &potentials };
            let (dense, total) =
                (plan.dense::<f64>(&control).unwrap(), plan.sums(&control).unwrap().cost);
            let cost_of = |x: &Array2<f64>, y: &Array2<f64>| {
                let clouds = Clouds::new(x.view(), y.view(), metric).unwrap();
                let mut row = vec![0.0; m];
                dense.rows().into_iter().enumerate().fold(0.0, |total, (i, p)| {
                    clouds.fill(i, &mut row);
                    total + p.iter().zip(&row).map(|(p, c)| p * c).sum::<f64>()
                })
            };
            let h = 1e-5;
            for (i, k) in [(0, 0), (17, 2), (44, 1)] {
                let moved = |points: &Array2<f64>, by: f64| {
                    let mut points = points.clone();
                    points[[i, k]] += by;
                    points
                };
                let in_x = (cost_of(&moved(&x, h), &y) - cost_of(&moved(&x, -h), &y)) / (2.0 * h);
                let in_y = (cost_of(&x, &moved(&y, h)) - cost_of(&x, &moved(&y, -h))) / (2.0 * h);
                assert!((found.x[[i, k]] - in_x).abs() < 1e-7 * total, "{metric:?}");
                assert!((found.y[[i, k]] - in_y).abs() < 1e-7 * total, "{metric:?}");
            }
        }
    }

    #[test]
    fn points_that_coincide_do_not_pull() {
        let x = cloud(5, 2, 0.0);
        let potentials = Potentials { phi: vec![0.0; 5], gamma: vec![-800.0; 5] };
        let alone = Potentials { gamma: vec![0.0, -800.0, -800.0, -800.0, -800.0], ..potentials };
        for metric in [Metric::SquaredEuclidean, Metric::Euclidean, Metric::Cityblock] {
            let control = Control::default();
            let found =
                position_gradient(x.view(), x.view(), metric, 1.0, &alone, &control).unwrap();
            assert_eq!(found.x.row(0).to_vec(), [0.0, 0.0], "{metric:?}");
            assert!(found.y.iter().all(|value| value.is_finite()));
            assert_eq!(found.y.row(3).to_vec(), [0.0, 0.0]);
        }
    }
}
