//! The transport of a set of weights to itself: one potential, and a fast iteration.
//!
//! With equal weights and symmetric costs both potentials are equal. Sinkhorn's iteration is slow here,
//! since the plan is nearly diagonal; the mean of a potential and its half step is not, since the two
//! lie on opposite sides of the solution (Knight, Ruiz and Uçar 2014; Feydy et al. 2019).

use super::cost::Cost;
use super::marginal::Marginal;
use super::rows::{Blocks, GROUP, Gibbs, Potentials, visit};
use super::sinkhorn::{Options, Problem, Solution, finish};
use crate::{Control, Error};

/// Solves the problem with a symmetric cost matrix and the weights `a` on both sides (`problem.b` is
/// not looked at), from a potential `f` if one is given.
///
/// # Errors
/// [`Error::Shape`] where the costs are not square; [`Error::Infeasible`] where a point with weight
/// has no partner; [`Error::Cancelled`].
pub fn sinkhorn_symmetric<C: Cost>(
    problem: &Problem<'_, C>,
    options: &Options,
    start: Option<&[f64]>,
    control: &Control,
) -> Result<Solution, Error> {
    let Problem { cost, a, epsilon, penalties, .. } = *problem;
    let (n, m) = cost.shape();
    if n != m {
        return Err(Error::Shape {
            name: "cost",
            expected: format!("({n}, {n})"),
            got: vec![n, m],
        });
    }
    let side = Marginal::new(a, epsilon / penalties.0);
    let tol = options.tol * side.mass();
    let mut phi = side.log_weights.clone();
    if let Some(f) = start {
        phi.iter_mut().zip(f).for_each(|(phi, f)| *phi += f / epsilon);
    }
    let gibbs = Gibbs { cost, scale: 1.0 / epsilon };
    let mut blocks = Blocks::new((n, n));
    let (mut sums, mut errors) = (vec![0.0; n], Vec::new());
    for step in 0.. {
        // The guard of the rows must not move one side alone: where it would act, `from` tells.
        let gamma = phi.clone();
        let mut rows = phi.clone();
        let fresh = step == 0 && start.is_none();
        visit(
            gibbs,
            &mut rows,
            &gamma,
            fresh,
            &mut blocks,
            control,
            |first, phi, _, found, block| {
                // Row sums travel in the block's columns, which nothing else uses here.
                for (k, (&found, &phi)) in found.iter().zip(phi.iter()).enumerate() {
                    let shift = gamma[first + k] - phi;
                    block.columns[first + k] =
                        if found > 0.0 { found.ln() + shift } else { f64::NEG_INFINITY };
                }
                debug_assert!(found.len() <= GROUP);
            },
        )?;
        if let Some(index) = blocks.stranded() {
            return Err(Error::Infeasible { name: "a", index });
        }
        blocks.collect(&mut sums);
        let mut error = 0.0;
        for (i, log_sum) in sums.iter_mut().enumerate() {
            let sum = if a[i] > 0.0 { log_sum.exp() } else { 0.0 };
            error += 2.0 * (sum - side.target(i, phi[i])).abs();
            if a[i] > 0.0 {
                let full = side.log_weights[i] + (phi[i] - *log_sum) / (1.0 + side.slack);
                // The first step from nothing is a whole one.
                phi[i] = if fresh { full } else { 0.5 * (phi[i] + full) };
            }
            *log_sum = sum;
        }
        errors.push(error);
        control.report(error);
        if error <= tol || errors.len() >= options.max_iter || control.is_stopped() {
            // The error is that of the potentials before the step.
            phi = gamma;
            break;
        }
    }
    let potentials = Potentials { gamma: phi.clone(), phi };
    finish(problem, (&side, &side), potentials, &sums, errors, tol, control)
}
