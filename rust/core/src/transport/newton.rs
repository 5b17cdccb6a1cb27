//! Newton's method on the dual, for where Sinkhorn's iteration is slow.
//!
//! With `R`, `Q` the sums of the plan `P` (plus what a penalty adds), a step solves
//!
//! ```text
//! [ diag R   P      ] [dx]   [a - P 1 ]
//! [ P'       diag Q ] [dy] = [b - P' 1]
//! ```
//!
//! in units of epsilon, by eliminating `dx`: `S dy = gy - P' (gx / R)` with the Schur complement
//! `S = diag Q - P' diag(1 / R) P`. `S` maps constants to 0; a shift that vanishes with the gradient
//! keeps it definite. The system is solved by conjugate gradients, or, where these are slow (plans near
//! a permutation), by Cholesky's factorization.

use ndarray::Array2;

use super::cost::Cost;
use super::marginal::Marginal;
use super::rows::{Gibbs, Potentials};
use super::scaling::{Kernel, Row};
use super::sinkhorn::Problem;
use crate::linalg::cholesky;
use crate::{Control, Error};

/// Conjugate-gradient steps after which a direct solve is worth its price.
const MAX_CG: usize = 150;
/// Columns beyond which no direct solve is tried.
const MAX_DIRECT: usize = 3000;
/// Halvings of a step before the shift is raised instead.
const MAX_HALVINGS: usize = 8;
/// Part of the error that the entries left out of the operator may carry.
const NEGLIGIBLE: f64 = 1e-2;
/// Residual of the system of a gradient, relative to its right-hand side: what is aimed at, and what is
/// accepted.
const ADJOINT_TOL: f64 = 1e-11;
const ADJOINT_ACCEPTED: f64 = 1e-8;
/// What rounding leaves of its right-hand side, relative to the parts that were subtracted.
const ADJOINT_FLOOR: f64 = 1e-15;

/// How the iteration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Converged,
    OutOfSteps,
    Stopped,
    /// No step improved on what was there.
    Stuck,
}

/// What the iteration needs from its caller.
pub(super) struct Newton<'a, C> {
    pub(super) gibbs: Gibbs<'a, C>,
    pub(super) rows: &'a Marginal,
    pub(super) columns: &'a Marginal,
    pub(super) tol: f64,
    pub(super) max_steps: usize,
    /// Entries of the plan that the operator keeps, as published for sparse Newton iterations (Tang et
    /// al. 2024): a number of them. Without it the mass left out is bounded instead.
    pub(super) n_kept: Option<usize>,
    pub(super) control: &'a Control,
}

/// How much was done.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) steps: usize,
    pub(super) cg: usize,
}

/// The plan at some potentials with its gradient.
struct Point {
    kernel: Kernel,
    gx: Vec<f64>,
    gy: Vec<f64>,
    error: f64,
    dual: f64,
}

impl<C: Cost> Newton<'_, C> {
    /// Improves `state` until its error, which is returned, is at most `tol`; `sums` gets the plan's
    /// column sums, `errors` one entry a step.
    pub(super) fn run(
        &self,
        state: &mut Potentials,
        sums: &mut [f64],
        counts: &mut Counts,
        errors: &mut Vec<f64>,
    ) -> Result<(End, f64), Error> {
        let mut point = self.point(state.clone(), f64::INFINITY)?;
        let mut shift = 1.0;
        let mut direct = false;
        let end = loop {
            if point.error <= self.tol {
                break End::Converged;
            }
            if self.control.is_stopped() {
                break End::Stopped;
            }
            if counts.steps >= self.max_steps {
                break End::OutOfSteps;
            }
            let (dx, dy) = self.direction(&mut point, shift, &mut direct, counts)?;
            match self.search(&point, &dx, &dy)? {
                Some((next, full)) => {
                    point = next;
                    shift = if full { (shift * 0.1_f64).max(1.0) } else { shift };
                }
                None if shift < 1e8 => {
                    shift *= 10.0;
                    continue;
                }
                None => break End::Stuck,
            }
            counts.steps += 1;
            errors.push(point.error);
            self.control.report(point.error);
        };
        state.clone_from(point.kernel.base());
        sums.copy_from_slice(&point.kernel.column_sums);
        Ok((end, point.error))
    }

    /// The plan at `state`, without the entries that are negligible beside `error`.
    fn point(&self, state: Potentials, error: f64) -> Result<Point, Error> {
        let (rows, columns) = (self.rows, self.columns);
        let least = (1e-3 * self.tol / rows.mass()).min(1e-3);
        let negligible = (NEGLIGIBLE * error / rows.mass()).clamp(least, 1e-3);
        let negligible = if self.n_kept.is_some() { 0.0 } else { negligible };
        let mut kernel = Kernel::new(self.gibbs, rows, columns, state, negligible, self.control)?;
        if let Some(n) = self.n_kept {
            kernel.keep_largest(n);
        }
        let gradient = |side: &Marginal, potentials: &[f64], sums: &[f64]| -> Vec<f64> {
            let targets = potentials.iter().enumerate().map(|(i, &p)| side.target(i, p));
            targets.zip(sums).map(|(target, sum)| target - sum).collect()
        };
        let gx = gradient(rows, &kernel.base().phi, &kernel.row_sums);
        let gy = gradient(columns, &kernel.base().gamma, &kernel.column_sums);
        let error = gx.iter().chain(&gy).map(|g| g.abs()).sum();
        let total: f64 = kernel.row_sums.iter().sum();
        let dual = rows.dual(&kernel.base().phi) + columns.dual(&kernel.base().gamma) - total;
        Ok(Point { kernel, gx, gy, error, dual })
    }

    /// Solves for the step; `direct` remembers that conjugate gradients were slow.
    fn direction(
        &self,
        point: &mut Point,
        shift: f64,
        direct: &mut bool,
        counts: &mut Counts,
    ) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let Point { kernel, gx, gy, error, .. } = point;
        let norm = gx.iter().chain(gy.iter()).map(|g| g * g).sum::<f64>().sqrt();
        // In proportion to the sums: points of little weight are not swamped.
        let excess = (1e-2 * shift * *error / self.rows.mass()).max(1e-14);
        let shifted = |side: &Marginal, potentials: &[f64], sums: &[f64]| -> Vec<f64> {
            let stiffness = side.stiffness(potentials, sums).into_iter();
            // Without weight there is nothing to move: any pivot does.
            stiffness.map(|r| if r > 0.0 { r * (1.0 + excess) } else { 1.0 }).collect()
        };
        let r = shifted(self.rows, &kernel.base().phi, &kernel.row_sums);
        let q = shifted(self.columns, &kernel.base().gamma, &kernel.column_sums);
        let inverse: Vec<f64> = r.iter().map(|r| 1.0 / r).collect();

        let mut middle: Vec<f64> = gx.iter().zip(&inverse).map(|(g, w)| g * w).collect();
        let mut right = vec![0.0; gy.len()];
        kernel.transpose_multiply(&mut middle, &mut right, self.control)?;
        for (right, g) in right.iter_mut().zip(gy.iter()) {
            *right = g - *right;
        }
        let tolerance = norm.sqrt().min(0.1);
        let small = q.len() <= MAX_DIRECT && self.n_kept.is_none();
        let mut dy = None;
        if !(*direct && small) {
            let limit = if small { MAX_CG } else { 20 * MAX_CG };
            let (found, met) = conjugate_gradients(
                kernel,
                (&inverse, &q),
                &right,
                tolerance * length(&right),
                limit,
                counts,
                self.control,
            )?;
            *direct = !met;
            if met || !small {
                dy = Some(found);
            }
        }
        let dy = match dy {
            Some(dy) => dy,
            None => solve_directly(kernel, &inverse, &q, right, 0.0, self.control)?,
        };
        // dx = (gx - P dy) / R
        let mut weighted = vec![0.0; gx.len()];
        let mut unused = vec![0.0; gy.len()];
        kernel.gram(&dy, &inverse, &mut weighted, &mut unused, self.control)?;
        let dx = gx.iter().zip(&inverse).zip(&weighted).map(|((g, w), p)| g * w - p).collect();
        Ok((dx, dy))
    }

    /// The best point along a direction, and whether the whole step was taken.
    fn search(&self, from: &Point, dx: &[f64], dy: &[f64]) -> Result<Option<(Point, bool)>, Error> {
        let base = from.kernel.base();
        let slope: f64 =
            from.gx.iter().zip(dx).chain(from.gy.iter().zip(dy)).map(|(g, d)| g * d).sum();
        if !(slope > 0.0) {
            return Ok(None);
        }
        let moved = |from: &[f64], by: &[f64], alpha: f64| -> Vec<f64> {
            from.iter().zip(by).map(|(p, d)| p + alpha * d).collect()
        };
        let mut alpha = 1.0;
        for halvings in 0..MAX_HALVINGS {
            let state = Potentials {
                phi: moved(&base.phi, dx, alpha),
                gamma: moved(&base.gamma, dy, alpha),
            };
            let trial = self.point(state, from.error)?;
            let in_range = trial.dual.is_finite() && trial.error.is_finite();
            let gain = trial.dual - from.dual;
            let flat = gain.abs() < 1e-13 * from.dual.abs().max(1.0);
            if in_range && (gain >= 1e-4 * alpha * slope || (flat && trial.error < from.error)) {
                return Ok(Some((trial, halvings == 0)));
            }
            alpha *= 0.5;
        }
        Ok(None)
    }
}

/// Solves the system of a Newton step for other right-hand sides: with it the derivatives of the
/// potentials are pulled back (the implicit function theorem).
///
/// Returns `(x, y)` with `R x + P y = rows` and `P' x + Q y = columns`; without penalties, whose system
/// is singular, up to a constant that goes from the one to the other, and the right-hand sides must
/// have equal sums. Points without weight get 0.
///
/// # Errors
/// [`Error::NotConverged`] where the residual stays above 1e-8 of the right-hand sides, or what rounding
/// leaves of them where they cancel; [`Error::Cancelled`].
pub fn solve_adjoint<C: Cost>(
    problem: &Problem<'_, C>,
    potentials: &Potentials,
    rows: &[f64],
    columns: &[f64],
    control: &Control,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let Problem { cost, a, b, epsilon, penalties } = *problem;
    let (first, second) =
        (Marginal::new(a, epsilon / penalties.0), Marginal::new(b, epsilon / penalties.1));
    let mut kernel = Kernel::new(
        Gibbs { cost, scale: 1.0 / epsilon },
        &first,
        &second,
        potentials.clone(),
        1e-17,
        control,
    )?;
    let r = first.stiffness(&potentials.phi, &kernel.row_sums);
    let inverse: Vec<f64> = r.iter().map(|&r| if r > 0.0 { 1.0 / r } else { 0.0 }).collect();
    // A column without weight has nothing in it: any pivot gives 0.
    let q = second.stiffness(&potentials.gamma, &kernel.column_sums);
    let q: Vec<f64> = q.into_iter().map(|q| if q > 0.0 { q } else { 1.0 }).collect();

    let not_met = |error| match error {
        Error::Cancelled => error,
        _ => Error::NotConverged { name: "the linear system of the gradient" },
    };
    let mut middle: Vec<f64> = rows.iter().zip(&inverse).map(|(g, w)| g * w).collect();
    let mut right = vec![0.0; q.len()];
    kernel.transpose_multiply(&mut middle, &mut right, control)?;
    for (j, (right, g)) in right.iter_mut().zip(columns).enumerate() {
        *right = if b[j] > 0.0 { g - *right } else { 0.0 };
    }
    // The two parts cancel where the potentials are asked for what no change of the problem moves, such
    // as sums of the plan: then there is nothing but rounding to solve for.
    let size: f64 = rows.iter().chain(columns).map(|g| g.abs()).sum();
    let floor = ADJOINT_FLOOR * size;
    let goal = floor.max(ADJOINT_TOL * length(&right));
    let (limit, mut counts) = (if q.len() <= MAX_DIRECT { 500 } else { 10_000 }, Counts::default());
    let (mut y, mut met) = conjugate_gradients(
        &mut kernel,
        (&inverse, &q),
        &right,
        goal,
        limit,
        &mut counts,
        control,
    )?;
    if !met && q.len() <= MAX_DIRECT {
        let singular = first.slack == 0.0 && second.slack == 0.0;
        let level = if singular { q.iter().sum::<f64>() / (q.len() * q.len()) as f64 } else { 0.0 };
        y = solve_directly(&kernel, &inverse, &q, right.clone(), level, control)
            .map_err(not_met)?;
        let mut image = vec![0.0; q.len()];
        kernel.gram(&y, &inverse, &mut middle, &mut image, control)?;
        let residuals = image.iter().zip(&q).zip(&y).zip(&right);
        let residual: Vec<f64> = residuals.map(|(((s, q), y), g)| q * y - s - g).collect();
        met = length(&residual) <= floor.max(ADJOINT_ACCEPTED * length(&right));
    }
    if !met {
        return Err(Error::NotConverged { name: "the linear system of the gradient" });
    }
    let mut unused = vec![0.0; q.len()];
    kernel.gram(&y, &inverse, &mut middle, &mut unused, control)?;
    let x = rows.iter().zip(&inverse).zip(&middle).map(|((g, w), p)| g * w - p).collect();
    Ok((x, y))
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Solves `(diag q - P' diag(inverse) P) y = right` until the residual's norm is at most `goal`; says
/// whether it is.
fn conjugate_gradients(
    kernel: &mut Kernel,
    (inverse, q): (&[f64], &[f64]),
    right: &[f64],
    goal: f64,
    limit: usize,
    counts: &mut Counts,
    control: &Control,
) -> Result<(Vec<f64>, bool), Error> {
    let (n, m) = (inverse.len(), q.len());
    if length(right) <= goal {
        return Ok((vec![0.0; m], true));
    }
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let squares = kernel.squared_columns(inverse);
    let jacobi: Vec<f64> =
        q.iter().zip(&squares).map(|(q, s)| 1.0 / (q - s).max(1e-12 * q)).collect();
    let precondition =
        |r: &[f64]| -> Vec<f64> { r.iter().zip(&jacobi).map(|(r, j)| r * j).collect() };
    let (mut y, mut residual) = (vec![0.0; m], right.to_vec());
    let mut z = precondition(&residual);
    let mut p = z.clone();
    let mut rz = dot(&residual, &z);
    let (mut weighted, mut image) = (vec![0.0; n], vec![0.0; m]);
    for _ in 0..limit {
        kernel.gram(&p, inverse, &mut weighted, &mut image, control)?;
        for ((image, q), p) in image.iter_mut().zip(q).zip(&p) {
            *image = q * p - *image;
        }
        counts.cg += 1;
        let curvature = dot(&p, &image);
        if !(curvature > 0.0) {
            return Ok((y, false));
        }
        let step = rz / curvature;
        for ((y, residual), (p, image)) in y.iter_mut().zip(&mut residual).zip(p.iter().zip(&image))
        {
            *y += step * p;
            *residual -= step * image;
        }
        if length(&residual) <= goal {
            return Ok((y, true));
        }
        z = precondition(&residual);
        let next = dot(&residual, &z);
        let ratio = next / rz;
        rz = next;
        for (p, z) in p.iter_mut().zip(&z) {
            *p = z + ratio * *p;
        }
    }
    Ok((y, false))
}

/// The same by Cholesky's factorization, after `level` is added to every entry: without effect on the
/// solution where the matrix maps constants to 0 and the right-hand side has none.
fn solve_directly(
    kernel: &Kernel,
    inverse: &[f64],
    q: &[f64],
    right: Vec<f64>,
    level: f64,
    control: &Control,
) -> Result<Vec<f64>, Error> {
    let m = q.len();
    let mut schur = Array2::from_elem((m, m), level);
    for (entry, q) in schur.diag_mut().iter_mut().zip(q) {
        *entry += q;
    }
    let mut dense = Vec::new();
    kernel.for_each_row(|i, row| match row {
        Row::Dense(values) => {
            let root = inverse[i].sqrt();
            dense.extend(values.iter().map(|value| value * root));
        }
        Row::Sparse(indices, values) => {
            for (&j, &value) in indices.iter().zip(values) {
                let factor = inverse[i] * value;
                let target = &mut schur.as_slice_mut().unwrap_or_default()[j as usize * m..];
                for (&k, &value) in indices.iter().zip(values) {
                    if k > j {
                        break;
                    }
                    target[k as usize] -= factor * value;
                }
            }
        }
    });
    control.check()?;
    if !dense.is_empty() {
        cholesky::subtract_gram(&mut schur, &dense, m, control);
    }
    cholesky::solve(schur, right, control)
}
