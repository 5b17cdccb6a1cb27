//! Sensitivities for p = 1, by an interior point method.
//!
//! The least `sum_j |f_j x|` over `t x = 1` is a linear program. Its dual asks for the largest `lambda`
//! with `F' z = lambda t` and `|z_j| <= 1`: as `sum_j |f_j x| >= z' F x = lambda`, each x and each z bound
//! the value from either side. The predictor and corrector steps of Mehrotra (1992) lead both to the
//! optimum, as Portnoy and Koenker (1997) do for regression by least absolute deviations: in 5 to 40
//! steps whatever the rows are, where weights that follow the residuals take hundreds.

#![allow(clippy::needless_range_loop)] // several arrays of so many lanes are read at once

use ndarray::Array2;

use super::gram::Sum;
use super::panel::Frame;
use crate::linalg::cholesky::Factor;
use crate::linalg::column;
use crate::simd::{fold, vectorize};
use crate::{Control, Error};

/// The part of the way to the nearest constraint that is gone.
const NEARLY: f64 = 0.9995;
/// Rows at a time: a vector or more.
const LANES: usize = 8;

/// A point of the linear program and one of its dual.
pub(super) struct Search<'a> {
    frame: &'a Frame<'a, f64>,
    target: &'a [f64],
    lambda: f64,
    rows: Vec<Rows>,
}

/// What the two points have of some rows, or how that changes.
///
/// `F x = above - below` for an x with `t x = 1`, both positive, and `|z| < 1`; at the optimum the
/// products `above (1 - z)` and `below (1 + z)` vanish. Rows of zeros fill the last block.
#[derive(Clone, Copy, Default)]
struct Rows {
    z: [f64; LANES],
    above: [f64; LANES],
    below: [f64; LANES],
}

/// The system that a step solves.
struct System {
    factor: Factor,
    /// Its solution for the target.
    direction: Vec<f64>,
    /// What z moves by as F x does.
    weights: Vec<[f64; LANES]>,
}

impl<'a> Search<'a> {
    /// Starts from least squares.
    ///
    /// # Errors
    /// [`Error::NotPositiveDefinite`] where the rows do not span their space.
    pub(super) fn new(
        frame: &'a Frame<'a, f64>,
        target: &'a [f64],
        control: &Control,
    ) -> Result<Self, Error> {
        let mut x = target.to_vec();
        solve(&factor(gram(frame, None, control)?)?, &mut x);
        let along = dot(&x, target);
        for x in &mut x {
            *x /= along;
        }
        let y = multiply(frame, &x, control)?;
        let moduli = || y.iter().flatten().map(|y| y.abs());
        // F' y = t / along: half way to the bounds.
        let scale = 0.5 / moduli().fold(0.0, f64::max);
        let slack = 0.1 * moduli().sum::<f64>() / frame.n_rows() as f64;
        let rows = |y: [f64; LANES]| Rows {
            z: y.map(|y| scale * y),
            above: y.map(|y| y.max(0.0) + slack),
            below: y.map(|y| (-y).max(0.0) + slack),
        };
        let rows = y.iter().map(|&y| rows(y)).collect();
        Ok(Self { frame, target, lambda: scale / along, rows })
    }

    /// Bounds of the sensitivity from below and above, apart by a factor of at most `1 + tol` where
    /// `max_iter` steps are enough.
    ///
    /// # Errors
    /// [`Error::Cancelled`]
    pub(super) fn run(
        &mut self,
        tol: f64,
        max_iter: usize,
        control: &Control,
    ) -> Result<(f64, f64), Error> {
        let (mut lower, mut upper) = self.bounds();
        for _ in 0..max_iter {
            if upper <= (1.0 + tol) * lower {
                break;
            }
            // Weights apart by more than floating-point numbers can say: no step is left to make.
            match self.step(control) {
                Ok(()) => {}
                Err(Error::NotPositiveDefinite { .. }) => break,
                Err(error) => return Err(error),
            }
            let (from_below, from_above) = self.bounds();
            (lower, upper) = (lower.max(from_below), upper.min(from_above));
        }
        Ok((lower, upper))
    }

    /// What the two points show.
    fn bounds(&self) -> (f64, f64) {
        let (value, most) = extent(&self.rows);
        (1.0 / value, if self.lambda > 0.0 { most / self.lambda } else { f64::INFINITY })
    }

    fn step(&mut self, control: &Control) -> Result<(), Error> {
        let weights = weights(&self.rows);
        let factor = factor(gram(self.frame, Some(weights.as_flattened()), control)?)?;
        let mut direction = self.target.to_vec();
        solve(&factor, &mut direction);
        let system = System { factor, direction, weights };
        let nothing = vec![Rows::default(); self.rows.len()];
        let (_, predictor) = self.towards(0.0, &nothing, &system, control)?;
        let lengths = longest(&self.rows, &predictor);
        let before = gap(&self.rows, &predictor, (0.0, 0.0));
        let after = gap(&self.rows, &predictor, lengths);
        let n_products = 2 * LANES * self.rows.len();
        let aim = (after / before).powi(3) * before / n_products as f64;
        let (lambda, step) = self.towards(aim, &predictor, &system, control)?;
        let lengths = longest(&self.rows, &step);
        if !lambda.is_finite() {
            return Err(Error::NotPositiveDefinite { name: "the system" });
        }
        advance(&mut self.rows, &step, lengths);
        self.lambda += lengths.1 * lambda;
        Ok(())
    }

    /// The Newton step that brings the products to `aim`, less the products of the changes of the
    /// predictor: of lambda, and of the rows.
    fn towards(
        &self,
        aim: f64,
        predictor: &[Rows],
        system: &System,
        control: &Control,
    ) -> Result<(f64, Vec<Rows>), Error> {
        let right = right(&self.rows, predictor, aim, &system.weights);
        let mut x = transpose_multiply(self.frame, right.as_flattened(), control)?;
        add(&mut x, self.lambda, self.target);
        solve(&system.factor, &mut x);
        let lambda = -dot(&x, self.target) / dot(&system.direction, self.target);
        add(&mut x, lambda, &system.direction);
        let moved = multiply(self.frame, &x, control)?;
        Ok((lambda, changes(&self.rows, predictor, aim, &system.weights, &moved)))
    }
}

/// The sum of the moduli of F x, and the largest of z.
fn extent(rows: &[Rows]) -> (f64, f64) {
    vectorize(
        #[inline(always)]
        || {
            let (mut sums, mut most) = ([0.0; LANES], [0.0; LANES]);
            for row in rows {
                for i in 0..LANES {
                    sums[i] += (row.above[i] - row.below[i]).abs();
                    most[i] = f64::max(most[i], row.z[i].abs());
                }
            }
            (fold(sums, |a, b| a + b), fold(most, f64::max))
        },
    )
}

fn weights(rows: &[Rows]) -> Vec<[f64; LANES]> {
    let mut out = vec![[0.0; LANES]; rows.len()];
    vectorize(
        #[inline(always)]
        || {
            for (out, row) in out.iter_mut().zip(rows) {
                for i in 0..LANES {
                    let spread = row.above[i] / (1.0 - row.z[i]) + row.below[i] / (1.0 + row.z[i]);
                    out[i] = 1.0 / spread;
                }
            }
        },
    );
    out
}

impl Rows {
    /// What above and below are to be in place i, were z to stay.
    #[inline(always)]
    fn wanted(&self, predictor: &Self, aim: f64, i: usize) -> (f64, f64) {
        let above = predictor.above[i].mul_add(predictor.z[i], aim);
        let below = (-predictor.below[i]).mul_add(predictor.z[i], aim);
        (above / (1.0 - self.z[i]), below / (1.0 + self.z[i]))
    }
}

/// What is missing of F x for that, times the weights, less z.
fn right(
    rows: &[Rows],
    predictor: &[Rows],
    aim: f64,
    weights: &[[f64; LANES]],
) -> Vec<[f64; LANES]> {
    let mut out = vec![[0.0; LANES]; rows.len()];
    vectorize(
        #[inline(always)]
        || {
            for (((out, row), predictor), weights) in
                out.iter_mut().zip(rows).zip(predictor).zip(weights)
            {
                for i in 0..LANES {
                    let (above, below) = row.wanted(predictor, aim, i);
                    let missing = (above - row.above[i]) - (below - row.below[i]);
                    out[i] = weights[i].mul_add(missing, -row.z[i]);
                }
            }
        },
    );
    out
}

/// The changes of the rows where F x moves so far.
fn changes(
    rows: &[Rows],
    predictor: &[Rows],
    aim: f64,
    weights: &[[f64; LANES]],
    moved: &[[f64; LANES]],
) -> Vec<Rows> {
    let mut out = vec![Rows::default(); rows.len()];
    vectorize(
        #[inline(always)]
        || {
            for ((((out, row), predictor), weights), moved) in
                out.iter_mut().zip(rows).zip(predictor).zip(weights).zip(moved)
            {
                for i in 0..LANES {
                    let (above, below) = row.wanted(predictor, aim, i);
                    let missing = (above - row.above[i]) - (below - row.below[i]);
                    let z = weights[i] * (moved[i] - missing);
                    out.z[i] = z;
                    out.above[i] = above - row.above[i] + row.above[i] * z / (1.0 - row.z[i]);
                    out.below[i] = below - row.below[i] - row.below[i] * z / (1.0 + row.z[i]);
                }
            }
        },
    );
    out
}

/// How far the point and the dual one can follow a step, at most 1.
fn longest(rows: &[Rows], step: &[Rows]) -> (f64, f64) {
    #[inline(always)]
    fn cut(least: &mut f64, now: f64, change: f64) {
        let length = if change < 0.0 { -now / change } else { f64::INFINITY };
        *least = if length < *least { length } else { *least };
    }
    let (primal, dual) = vectorize(
        #[inline(always)]
        || {
            let (mut primal, mut dual) = ([f64::INFINITY; LANES], [f64::INFINITY; LANES]);
            for (row, step) in rows.iter().zip(step) {
                for i in 0..LANES {
                    cut(&mut primal[i], row.above[i], step.above[i]);
                    cut(&mut primal[i], row.below[i], step.below[i]);
                    cut(&mut dual[i], 1.0 - row.z[i], -step.z[i]);
                    cut(&mut dual[i], 1.0 + row.z[i], step.z[i]);
                }
            }
            (fold(primal, f64::min), fold(dual, f64::min))
        },
    );
    ((NEARLY * primal).min(1.0), (NEARLY * dual).min(1.0))
}

/// The sum of the products after so much of a step.
fn gap(rows: &[Rows], step: &[Rows], (primal, dual): (f64, f64)) -> f64 {
    vectorize(
        #[inline(always)]
        || {
            let mut sums = [0.0; LANES];
            for (row, step) in rows.iter().zip(step) {
                for i in 0..LANES {
                    let z = dual.mul_add(step.z[i], row.z[i]);
                    let above = primal.mul_add(step.above[i], row.above[i]);
                    let below = primal.mul_add(step.below[i], row.below[i]);
                    sums[i] += above * (1.0 - z) + below * (1.0 + z);
                }
            }
            fold(sums, |a, b| a + b)
        },
    )
}

fn advance(rows: &mut [Rows], step: &[Rows], (primal, dual): (f64, f64)) {
    for (row, step) in rows.iter_mut().zip(step) {
        add(&mut row.z, dual, &step.z);
        add(&mut row.above, primal, &step.above);
        add(&mut row.below, primal, &step.below);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &mut [f64], factor: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b);
}

fn factor(a: Array2<f64>) -> Result<Factor, Error> {
    Factor::new(a, &Control::sequential())
}

fn solve(factor: &Factor, right: &mut [f64]) {
    factor.solve(right, &Control::sequential());
}

/// `F' W F`
fn gram(
    frame: &Frame<'_, f64>,
    weights: Option<&[f64]>,
    control: &Control,
) -> Result<Array2<f64>, Error> {
    let (mut sum, mut buffer) = (Sum::new(frame), Vec::new());
    for panel in frame.panels(0..frame.n_rows()) {
        control.check()?;
        let weights = weights.map(|weights| &weights[panel.clone()]);
        sum.add(frame.rows(panel, &mut buffer), weights);
    }
    Ok(sum.symmetric())
}

/// `F x`
fn multiply(
    frame: &Frame<'_, f64>,
    x: &[f64],
    control: &Control,
) -> Result<Vec<[f64; LANES]>, Error> {
    let mut factor = x.to_vec();
    factor.resize(column::padded(x.len()), 0.0);
    let mut buffer = Vec::new();
    let mut out = vec![[0.0; LANES]; frame.n_rows().div_ceil(LANES)];
    for panel in frame.panels(0..frame.n_rows()) {
        control.check()?;
        let out = &mut out.as_flattened_mut()[panel.clone()];
        column::multiply_add(frame.rows(panel, &mut buffer), x.len(), &factor, out);
    }
    Ok(out)
}

/// `F' y`; what stands behind the rows is passed over.
fn transpose_multiply(
    frame: &Frame<'_, f64>,
    y: &[f64],
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let d = frame.width();
    let (mut sums, mut buffer) = (vec![0.0; column::padded(d)], Vec::new());
    for panel in frame.panels(0..frame.n_rows()) {
        control.check()?;
        let rows = frame.rows(panel.clone(), &mut buffer);
        column::transpose_multiply_add(rows, d, &y[panel], &mut sums);
    }
    sums.truncate(d);
    Ok(sums)
}
