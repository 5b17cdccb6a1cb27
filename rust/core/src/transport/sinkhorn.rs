//! The solver: which iteration runs when, and when it is done.

use super::cost::Cost;
use super::log_domain::{self, Step};
use super::marginal::Marginal;
use super::newton::{Counts, End, Newton};
use super::relaxation::Relaxation;
use super::rows::{Blocks, Gibbs, Potentials};
use super::scaling::Kernel;
use crate::special::math;
use crate::{Control, Error};

/// What is solved.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a, C> {
    /// Costs, shape (n, m).
    pub cost: &'a C,
    /// Weights of the rows: nonnegative, not all zero.
    pub a: &'a [f64],
    /// Weights of the columns, of the same mass as `a` unless a penalty stands for one of them.
    pub b: &'a [f64],
    /// Strength of the entropy, in the unit of the costs.
    pub epsilon: f64,
    /// `rho` of the penalties `rho KL(P 1 | a)` and `rho KL(P' 1 | b)` that stand for the marginals;
    /// infinite where a marginal must be met.
    pub penalties: (f64, f64),
}

/// Which iteration runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// Scaling, and Newton's method where that would take long.
    Auto,
    /// Sinkhorn's iteration in the log domain.
    Log,
    /// Sinkhorn's iteration on a stored plan.
    Scaling,
    /// Newton's method, along a path of falling epsilon.
    Newton,
    /// Sinkhorn's iteration in the log domain, then Newton's method with the few largest entries of the
    /// second derivative, as published (Tang et al. 2024, algorithm 1): for comparison.
    SparseNewton {
        /// Iterations of Sinkhorn first.
        n_start: usize,
        /// Entries of the (n + m) by (n + m) matrix of second derivatives that are kept, its diagonal
        /// included, for each of its rows: the paper's `lambda (n + m)`.
        density: f64,
    },
}

/// When to stop, and on what way.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which iteration runs.
    pub method: Method,
    /// Largest distance of the plan's marginals from the weights, in L1 over both sides, relative to
    /// the mass.
    pub tol: f64,
    /// The most iterations of Sinkhorn.
    pub max_iter: usize,
    /// The most steps of Newton.
    pub max_newton: usize,
    /// Whether Sinkhorn's steps may be lengthened.
    pub relaxation: bool,
    /// Bytes that a plan may take that is stored for Sinkhorn's iteration.
    pub memory: usize,
    /// Bytes that the two plans of Newton's method may take, where [`Method::Auto`] chooses it.
    pub newton_memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Method::Auto,
            tol: 1e-9,
            max_iter: 10_000,
            max_newton: 200,
            relaxation: true,
            memory: 2 << 30,
            newton_memory: 2 << 30,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// Potential of the rows, in the unit of the costs, shape (n,).
    pub f: Vec<f64>,
    /// Potential of the columns, shape (m,); without penalties `<a, f> = <b, g>`.
    pub g: Vec<f64>,
    /// Scaled potentials of the plan.
    pub potentials: Potentials,
    /// The dual objective at the potentials.
    pub value: f64,
    /// Distance of the plan's marginals from the weights, L1 over both sides.
    pub marginal_error: f64,
    /// The same after every iteration.
    pub errors: Vec<f64>,
    /// Iterations of Sinkhorn.
    pub n_iter: usize,
    /// Steps of Newton.
    pub n_newton: usize,
    /// Steps of conjugate gradients within them.
    pub n_cg: usize,
    /// Whether the error is within the tolerance.
    pub converged: bool,
    /// Whether the caller ended the iteration.
    pub stopped: bool,
    /// The factor by which the error last fell an iteration, where that is known.
    pub rate: Option<f64>,
}

/// Iterations in the log domain before a plan is stored: they bring the potentials near.
const START: usize = 3;
/// Iterations, at the rate observed, beyond which Newton's method is expected to be faster.
const PATIENCE: f64 = 250.0;
/// Part of the tolerance that entries left out of a stored plan may carry.
const NEGLIGIBLE: f64 = 1e-3;
/// Error, relative to the mass, below which the potentials move so little that a sparse plan lasts.
const SETTLED: f64 = 1e-2;
/// Levels of epsilon on the way to Newton's last: the first, relative to the range of the costs, the
/// ratio of two, iterations and tolerance of a level.
const FIRST_LEVEL: f64 = 0.05;
const LEVEL_RATIO: f64 = 0.25;
const LEVEL_STEPS: usize = 5;
/// Steps of Newton after which a start that seemed near is given up.
const NEAR_STEPS: usize = 15;
const LEVEL_TOL: f64 = 1e-2;

/// Solves a problem, from potentials `f`, `g` (in the unit of the costs) if they are given.
///
/// # Errors
/// [`Error::Infeasible`] where a point with weight has no partner; [`Error::Cancelled`].
pub fn sinkhorn<C: Cost>(
    problem: &Problem<'_, C>,
    options: &Options,
    start: Option<(&[f64], &[f64])>,
    control: &Control,
) -> Result<Solution, Error> {
    let mut solver = Solver::new(problem, options, start, control);
    match options.method {
        Method::Log => {
            solver.log_domain(options.max_iter)?;
        }
        Method::Scaling => {
            solver.scaling(f64::INFINITY)?;
        }
        Method::Newton => solver.annealed_newton(start.is_some())?,
        Method::SparseNewton { n_start, density } => {
            solver.relaxation = Relaxation::new(false);
            solver.log_domain(n_start)?;
            if !solver.ended() {
                let (n, m) = problem.cost.shape();
                // The diagonal is kept, and each entry of the plan stands there twice.
                let n_kept = 0.5 * (density - 1.0) * (n + m) as f64;
                solver.newton(solver.tol, options.max_newton, Some(n_kept.max(0.0) as usize))?;
            }
        }
        Method::Auto => {
            if !solver.scaling(PATIENCE)? && !solver.ended() {
                if solver.fits(2, options.newton_memory) {
                    solver.hand_over()?;
                }
                solver.scaling(f64::INFINITY)?; // where Newton got stuck
            }
        }
    }
    solver.finish()
}

struct Solver<'a, C> {
    problem: &'a Problem<'a, C>,
    options: &'a Options,
    control: &'a Control,
    rows: Marginal,
    columns: Marginal,
    /// Absolute.
    tol: f64,
    gibbs: Gibbs<'a, C>,
    state: Potentials,
    blocks: Blocks,
    sums: Vec<f64>,
    factors: Vec<f64>,
    relaxation: Relaxation,
    errors: Vec<f64>,
    error: f64,
    rate: Option<f64>,
    fresh: bool,
    stopped: bool,
    n_iter: usize,
    counts: Counts,
}

impl<'a, C: Cost> Solver<'a, C> {
    fn new(
        problem: &'a Problem<'a, C>,
        options: &'a Options,
        start: Option<(&[f64], &[f64])>,
        control: &'a Control,
    ) -> Self {
        let Problem { cost, a, b, epsilon, penalties } = *problem;
        let rows = Marginal::new(a, epsilon / penalties.0);
        let columns = Marginal::new(b, epsilon / penalties.1);
        let scaled = |side: &Marginal, potentials: Option<&[f64]>| match potentials {
            None => side.log_weights.clone(),
            Some(f) => side.log_weights.iter().zip(f).map(|(log, f)| log + f / epsilon).collect(),
        };
        let state = Potentials {
            phi: scaled(&rows, start.map(|(f, _)| f)),
            gamma: scaled(&columns, start.map(|(_, g)| g)),
        };
        let (_, m) = cost.shape();
        Self {
            problem,
            options,
            control,
            tol: options.tol * rows.mass(),
            gibbs: Gibbs { cost, scale: 1.0 / epsilon },
            rows,
            columns,
            state,
            blocks: Blocks::new(cost.shape()),
            sums: vec![0.0; m],
            factors: vec![0.0; m],
            relaxation: Relaxation::new(options.relaxation),
            errors: Vec::new(),
            error: f64::INFINITY,
            rate: None,
            fresh: true,
            stopped: false,
            n_iter: 0,
            counts: Counts::default(),
        }
    }

    fn ended(&self) -> bool {
        // An error that is not a number would go on for ever.
        !(self.error > self.tol) || self.n_iter >= self.options.max_iter || self.stopped
    }

    /// Takes note of an iteration's error.
    fn observe(&mut self, error: f64) {
        self.n_iter += 1;
        self.error = error;
        self.errors.push(error);
        self.control.report(error);
        // Read once an iteration: what is decided by it must not change within.
        self.stopped = self.control.is_stopped();
        if let Some(rate) = self.relaxation.observe(error) {
            self.rate = Some(rate);
        }
    }

    /// Up to `n` iterations in the log domain; whether the last error is within the tolerance.
    fn log_domain(&mut self, n: usize) -> Result<bool, Error> {
        for _ in 0..n {
            if self.ended() {
                break;
            }
            let omega = if self.fresh { 1.0 } else { self.relaxation.omega() };
            let error = self.sweep(omega)?;
            self.finish_iteration(error)?;
        }
        Ok(self.error <= self.tol)
    }

    /// The half step of the rows in the log domain; returns the distance of their sums from what they
    /// should be.
    fn sweep(&mut self, omega: f64) -> Result<f64, Error> {
        let step = Step { omega, fresh: self.fresh };
        self.fresh = false;
        log_domain::sweep(
            self.gibbs,
            &self.rows,
            &mut self.state,
            step,
            &mut self.blocks,
            &mut self.sums,
            self.control,
        )
    }

    /// A half step of the rows that takes the error of the whole plan, whatever ended the iteration.
    fn measure(&mut self) -> Result<(), Error> {
        let error = self.sweep(1.0)?;
        self.observe(error + self.columns.error(&self.state.gamma, &self.sums));
        Ok(())
    }

    /// The half step of the columns, unless the error that the rows' step left is small enough.
    fn finish_iteration(&mut self, row_error: f64) -> Result<(), Error> {
        let error = row_error + self.columns.error(&self.state.gamma, &self.sums);
        let omega = self.relaxation.omega();
        self.observe(error);
        if self.ended() {
            return Ok(()); // the error is that of the potentials as they are
        }
        self.move_columns(omega)
    }

    /// The half step of the columns.
    fn move_columns(&mut self, omega: f64) -> Result<(), Error> {
        let (weights, sums) = (&self.columns, &mut self.sums);
        let rescued =
            log_domain::rescue_columns(self.gibbs, weights, &self.state, sums, self.control)?;
        for &(j, _) in &rescued {
            sums[j] = 1.0; // any number with a logarithm
        }
        let gamma = &mut self.state.gamma;
        weights.half_step(0, gamma, sums, omega, &mut self.factors);
        for (j, potential) in rescued {
            gamma[j] = potential;
        }
        self.translate();
        Ok(())
    }

    /// Moves the constant that the plan does not see between the two potentials to where the
    /// penalties are least (Séjourné, Vialard and Peyré 2022).
    fn translate(&mut self) {
        let (rho_a, rho_b) = self.problem.penalties;
        if rho_a.is_infinite() && rho_b.is_infinite() {
            return;
        }
        let total = |side: &Marginal, potentials: &[f64]| -> f64 {
            potentials.iter().enumerate().map(|(i, &p)| side.target(i, p)).sum()
        };
        let ratio = total(&self.rows, &self.state.phi) / total(&self.columns, &self.state.gamma);
        let shift = ratio.ln() / (self.rows.slack + self.columns.slack);
        if shift.is_finite() {
            self.state.phi.iter_mut().for_each(|phi| *phi += shift);
            self.state.gamma.iter_mut().for_each(|gamma| *gamma -= shift);
        }
    }

    /// Whether so many plans may be stored in so many bytes.
    fn fits(&self, n_plans: usize, memory: usize) -> bool {
        let (n, m) = self.problem.cost.shape();
        n.saturating_mul(m).saturating_mul(8 * n_plans) <= memory
    }

    /// Iterations on a stored plan, made anew where the potentials have moved too far. Gives up where
    /// more than `patience` iterations seem to be left. Returns whether the last error is within the
    /// tolerance.
    fn scaling(&mut self, patience: f64) -> Result<bool, Error> {
        let fits = self.fits(1, self.options.memory);
        self.log_domain(START)?;
        let settled = SETTLED * self.rows.mass();
        let mut negligible = NEGLIGIBLE * self.options.tol;
        while !self.ended() {
            if self.is_slow(patience) {
                return Ok(false);
            }
            if !fits {
                self.log_domain(1)?;
                continue;
            }
            let may_be_sparse = self.error <= settled;
            let before = self.n_iter;
            let (sparse, lost) = self.on_stored_plan(
                if may_be_sparse { negligible } else { 0.0 },
                if may_be_sparse { 0.0 } else { settled },
                patience,
            )?;
            if lost || self.n_iter == before {
                self.log_domain(1)?; // sums have left the range
                negligible *= 1e-3;
            } else if sparse && self.error <= self.tol {
                // Look at the whole plan: entries left out may have grown.
                self.measure()?;
                negligible *= 1e-3;
            }
        }
        Ok(self.error <= self.tol)
    }

    /// Iterations on the plan at the present potentials, while it reaches and the error is above
    /// `until`. Says whether entries were left out, and whether sums have left the range.
    fn on_stored_plan(
        &mut self,
        negligible: f64,
        until: f64,
        patience: f64,
    ) -> Result<(bool, bool), Error> {
        let mut kernel = Kernel::new(
            self.gibbs,
            &self.rows,
            &self.columns,
            self.state.clone(),
            negligible,
            self.control,
        )?;
        while !self.ended()
            && self.error > until
            && kernel.reaches(&self.state)
            && !self.is_slow(patience)
        {
            let omega = self.relaxation.omega();
            let before = self.state.phi.clone();
            let sums = &mut self.sums;
            let found = kernel.sweep(&self.rows, &mut self.state, omega, sums, self.control)?;
            let Some(error) = found else {
                self.state.phi = before;
                return Ok((kernel.is_sparse(), true));
            };
            self.finish_iteration(error)?;
        }
        Ok((kernel.is_sparse(), false))
    }

    fn is_slow(&self, patience: f64) -> bool {
        let left = |rate: f64| (self.tol / self.error).ln() / rate.ln();
        self.rate.is_some_and(|rate| left(rate) > patience)
    }

    fn newton(&mut self, tol: f64, max_steps: usize, n_kept: Option<usize>) -> Result<End, Error> {
        let newton = Newton {
            gibbs: self.gibbs,
            rows: &self.rows,
            columns: &self.columns,
            tol,
            max_steps,
            n_kept,
            control: self.control,
        };
        let sums = &mut self.sums;
        let (end, error) = newton.run(&mut self.state, sums, &mut self.counts, &mut self.errors)?;
        self.error = error;
        self.stopped |= end == End::Stopped;
        self.relaxation.reset();
        self.rate = None;
        if end == End::Converged && tol <= self.tol {
            // The shift of the system swamps points of little weight, and their error does not show:
            // an iteration of Sinkhorn, which never makes the error larger, finds their potentials.
            self.measure()?;
            self.move_columns(1.0)?;
            self.measure()?;
        }
        Ok(end)
    }

    /// Newton's method from where Sinkhorn's iteration has come: at once if that is near, and along a
    /// path of falling epsilon if it is not, or was not after all.
    fn hand_over(&mut self) -> Result<(), Error> {
        let is_near = self.error < SETTLED * self.rows.mass();
        if is_near && let End::Converged | End::Stopped = self.newton(self.tol, NEAR_STEPS, None)? {
            return Ok(());
        }
        self.annealed_newton(false)
    }

    /// Newton's method along a path of falling epsilon, each level started from the one before.
    fn annealed_newton(&mut self, warm: bool) -> Result<(), Error> {
        let epsilon = self.problem.epsilon;
        let first = if warm { epsilon } else { FIRST_LEVEL * range(self.problem.cost) };
        let mut level = first.max(epsilon);
        self.set_level(epsilon, level);
        loop {
            let last = level <= epsilon;
            let tol = if last { self.tol } else { LEVEL_TOL * self.rows.mass() };
            self.error = f64::INFINITY;
            self.log_domain(LEVEL_STEPS)?;
            if self.error > tol {
                self.newton(tol, self.options.max_newton, None)?;
            }
            if last || self.stopped {
                break;
            }
            let next = (level * LEVEL_RATIO).max(epsilon);
            self.set_level(level, next);
            level = next;
        }
        if level > epsilon {
            self.set_level(level, epsilon);
            self.measure()?;
        }
        Ok(())
    }

    /// Keeps the potentials in the unit of the costs while epsilon changes.
    fn set_level(&mut self, from: f64, to: f64) {
        let rescale = |side: &mut Marginal, potentials: &mut [f64], penalty: f64| {
            for (p, log) in potentials.iter_mut().zip(&side.log_weights) {
                if *log > f64::NEG_INFINITY {
                    *p = log + (*p - log) * (from / to);
                }
            }
            side.slack = to / penalty;
        };
        rescale(&mut self.rows, &mut self.state.phi, self.problem.penalties.0);
        rescale(&mut self.columns, &mut self.state.gamma, self.problem.penalties.1);
        self.gibbs.scale = 1.0 / to;
        self.fresh = true;
        self.relaxation.reset();
    }

    fn finish(mut self) -> Result<Solution, Error> {
        self.center();
        let (sides, sums) = ((&self.rows, &self.columns), &self.sums);
        let (problem, tol, control) = (self.problem, self.tol, self.control);
        Ok(Solution {
            marginal_error: self.error,
            converged: self.error <= tol,
            stopped: self.stopped && self.error > tol,
            n_iter: self.n_iter,
            n_newton: self.counts.steps,
            n_cg: self.counts.cg,
            rate: self.rate,
            ..finish(problem, sides, self.state, sums, self.errors, tol, control)?
        })
    }

    /// Shares the constant that the plan does not see equally: `<a, f> = <b, g>`.
    fn center(&mut self) {
        if self.rows.slack > 0.0 || self.columns.slack > 0.0 {
            return; // the penalties see it
        }
        let (x, y) = (self.rows.dual(&self.state.phi), self.columns.dual(&self.state.gamma));
        let shift = 0.5 * (y - x) / self.rows.mass();
        if shift.is_finite() {
            self.state.phi.iter_mut().for_each(|phi| *phi += shift);
            self.state.gamma.iter_mut().for_each(|gamma| *gamma -= shift);
        }
    }
}

/// The solution with these scaled potentials, at which the plan has the column sums `sums` and the last
/// of `errors`, one an iteration.
pub(super) fn finish<C: Cost>(
    problem: &Problem<'_, C>,
    (rows, columns): (&Marginal, &Marginal),
    potentials: Potentials,
    sums: &[f64],
    errors: Vec<f64>,
    tol: f64,
    control: &Control,
) -> Result<Solution, Error> {
    let Problem { cost, epsilon, .. } = *problem;
    let (f, g) = in_units_of_cost(cost, epsilon, rows, columns, &potentials, control)?;
    let dual = rows.dual(&potentials.phi) + columns.dual(&potentials.gamma);
    let total: f64 = sums.iter().sum();
    let error = errors.last().copied().unwrap_or(f64::INFINITY);
    Ok(Solution {
        f,
        g,
        value: epsilon * (dual - total + rows.mass() * columns.mass()),
        potentials,
        marginal_error: error,
        converged: error <= tol,
        stopped: control.is_stopped() && error > tol,
        n_iter: errors.len(),
        n_newton: 0,
        n_cg: 0,
        rate: None,
        errors,
    })
}

/// Largest minus smallest finite cost.
fn range<C: Cost>(cost: &C) -> f64 {
    let (n, m) = cost.shape();
    let mut row = vec![0.0; m];
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for i in 0..n {
        cost.fill(i, &mut row);
        for &value in row.iter().filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
    }
    (high - low).max(0.0)
}

/// The potentials in the unit of the costs. A point without weight gets the one that its half step
/// would give it: what a little weight there would cost.
fn in_units_of_cost<C: Cost>(
    cost: &C,
    epsilon: f64,
    rows: &Marginal,
    columns: &Marginal,
    state: &Potentials,
    control: &Control,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let plain = |side: &Marginal, potentials: &[f64]| -> Vec<f64> {
        let pairs = potentials.iter().zip(&side.log_weights);
        pairs
            .map(|(&p, &log)| if log > f64::NEG_INFINITY { epsilon * (p - log) } else { 0.0 })
            .collect()
    };
    let (mut f, mut g) = (plain(rows, &state.phi), plain(columns, &state.gamma));
    let weightless = |side: &Marginal| -> Vec<usize> {
        (0..side.len()).filter(|&i| side.weights[i] == 0.0).collect()
    };
    let (empty_rows, empty_columns) = (weightless(rows), weightless(columns));
    let mut row = vec![0.0; columns.len()];
    let half_step = |side: &Marginal, high: f64, total: f64| {
        -epsilon * (high + total.ln()) / (1.0 + side.slack)
    };
    for &i in &empty_rows {
        control.check()?;
        cost.fill(i, &mut row);
        let (mut high, mut total) = (f64::NEG_INFINITY, 0.0);
        for (&c, &gamma) in row.iter().zip(&state.gamma) {
            add_exponential(gamma - c / epsilon, &mut high, &mut total);
        }
        f[i] = half_step(rows, high, total);
    }
    if !empty_columns.is_empty() {
        let mut sums = vec![(f64::NEG_INFINITY, 0.0); empty_columns.len()];
        for (i, &phi) in state.phi.iter().enumerate() {
            control.check()?;
            cost.fill(i, &mut row);
            for (&j, (high, total)) in empty_columns.iter().zip(&mut sums) {
                add_exponential(phi - row[j] / epsilon, high, total);
            }
        }
        for (&j, (high, total)) in empty_columns.iter().zip(sums) {
            g[j] = half_step(columns, high, total);
        }
    }
    Ok((f, g))
}

/// Adds `e^exponent` to the sum `total e^high`.
fn add_exponential(exponent: f64, high: &mut f64, total: &mut f64) {
    if exponent > *high {
        *total *= math::exp(*high - exponent);
        *high = exponent;
    }
    if exponent > f64::NEG_INFINITY {
        *total += math::exp(exponent - *high);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::super::cost::Dense;
    use super::super::symmetric::sinkhorn_symmetric;
    use super::*;

    const EXACT: (f64, f64) = (f64::INFINITY, f64::INFINITY);

    fn cost(n: usize, m: usize) -> Array2<f64> {
        Array2::from_shape_fn((n, m), |(i, j)| {
            ((i * 7919 + j * 104_729 + i * j) % 1000) as f64 / 1e3
        })
    }

    #[test]
    fn every_method_finds_the_same_plan_on_any_threads() {
        let cost = cost(40, 30);
        let (a, b) = (vec![1.0 / 40.0; 40], vec![1.0 / 30.0; 30]);
        let dense = Dense::new(cost.view()).unwrap();
        let problem = Problem { cost: &dense, a: &a, b: &b, epsilon: 0.05, penalties: EXACT };
        let mut values = Vec::new();
        let sparse = Method::SparseNewton { n_start: 20, density: 20.0 };
        for method in [Method::Log, Method::Scaling, Method::Newton, Method::Auto, sparse] {
            let options = Options { method, ..Options::default() };
            let alone = sinkhorn(&problem, &options, None, &Control::sequential()).unwrap();
            let found = sinkhorn(&problem, &options, None, &Control::new()).unwrap();
            assert_eq!(alone, found);
            assert!(found.converged, "{method:?}");
            values.push(found.value);
        }
        assert!(values.iter().all(|value| (value - values[0]).abs() < 1e-9), "{values:?}");
    }

    #[test]
    fn weights_go_to_themselves_by_one_potential() {
        let points: Vec<f64> = (0..25).map(|i| f64::from(i) / 25.0).collect();
        let cost = Array2::from_shape_fn((25, 25), |(i, j)| (points[i] - points[j]).powi(2));
        let mut a: Vec<f64> = (1..=25).map(f64::from).collect();
        a[3] = 0.0;
        let total: f64 = a.iter().sum();
        for weight in &mut a {
            *weight /= total;
        }
        let dense = Dense::new(cost.view()).unwrap();
        for penalties in [EXACT, (0.5, 0.5)] {
            let problem = Problem { cost: &dense, a: &a, b: &a, epsilon: 0.01, penalties };
            let (options, control) = (Options::default(), Control::sequential());
            let one = sinkhorn_symmetric(&problem, &options, None, &control).unwrap();
            let two = sinkhorn(&problem, &options, None, &control).unwrap();
            assert!(one.converged && one.n_iter < 60, "{}", one.n_iter);
            assert!((one.value - two.value).abs() < 1e-12);
            for (f, g) in one.f.iter().zip(&one.g) {
                assert!((f - g).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn what_cannot_be_moved_is_said() {
        let mut cost = cost(5, 5);
        cost.row_mut(2).fill(f64::INFINITY);
        let weights = [0.2; 5];
        let dense = Dense::new(cost.view()).unwrap();
        let problem =
            Problem { cost: &dense, a: &weights, b: &weights, epsilon: 0.05, penalties: EXACT };
        let (options, control) = (Options::default(), Control::sequential());
        let refused = sinkhorn(&problem, &options, None, &control);
        assert_eq!(refused, Err(Error::Infeasible { name: "a", index: 2 }));
        let cancelled = Control::new();
        cancelled.cancel();
        let refused = sinkhorn(&problem, &options, None, &cancelled);
        assert_eq!(refused, Err(Error::Cancelled));
    }
}
