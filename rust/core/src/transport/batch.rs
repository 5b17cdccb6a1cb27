//! Many small problems at once.

use super::cost::Cost;
use super::sinkhorn::{Options, Problem, Solution, sinkhorn};
use crate::parallel::for_each_chunk_with;
use crate::{Control, Error};

/// Solves each problem by itself, with a stopping test of its own, in parallel over the problems.
///
/// # Errors
/// The error of the first problem that has one, with its index in the list.
pub fn sinkhorn_batch<C: Cost>(
    problems: &[Problem<'_, C>],
    options: &Options,
    control: &Control,
) -> Result<Vec<Solution>, (usize, Error)> {
    let mut found: Vec<Option<Result<Solution, Error>>> = problems.iter().map(|_| None).collect();
    let mut indices: Vec<usize> = (0..problems.len()).collect();
    let cancelled = for_each_chunk_with(&mut indices, 1, &mut found, control, |index, _, found| {
        *found = Some(sinkhorn(&problems[index], options, None, control));
        Ok(())
    });
    if let Err(error) = cancelled {
        return Err((0, error));
    }
    let solutions = found.into_iter().flatten().enumerate();
    solutions.map(|(index, solution)| solution.map_err(|error| (index, error))).collect()
}
