//! The one error type of the crate.

/// Why a kernel gave no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// [`Control::cancel`](crate::Control::cancel) was called while the kernel ran.
    #[error("cancelled by the caller")]
    Cancelled,
    /// Two arrays whose shapes must agree, or broadcast, do not.
    #[error("'{name}' must have shape {expected} to match the other arguments; got {got:?}")]
    Shape {
        /// The argument at fault.
        name: &'static str,
        /// What was expected, in words or as a shape.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// An array larger than memory.
    #[error("there is no memory for an array of shape {shape:?}")]
    Memory {
        /// The shape of the array.
        shape: Vec<usize>,
    },
    /// A number outside the domain of the function.
    #[error("'{name}' must be {expected}; got {got}")]
    Domain {
        /// The argument at fault.
        name: &'static str,
        /// What was expected, in words.
        expected: &'static str,
        /// The first offending value.
        got: f64,
    },
    /// A point with mass that no finite cost connects to the other side.
    #[error(
        "'{name}' has mass at index {index}, but every pair of that point is forbidden, or its cost \
         overflows: give it a finite cost, or no weight"
    )]
    Infeasible {
        /// The weights at fault.
        name: &'static str,
        /// Index of the point.
        index: usize,
    },
    /// An inner iteration that must be exact was not.
    #[error("{name} could not be solved to its tolerance")]
    NotConverged {
        /// What was to be solved.
        name: &'static str,
    },
    /// A matrix that must be positive definite is not.
    #[error("'{name}' is not positive definite")]
    NotPositiveDefinite {
        /// What the matrix is.
        name: &'static str,
    },
    /// A row of a matrix is not a unit vector.
    #[error("'{name}' must hold unit vectors: row {row} has norm {norm}. Divide by the norm.")]
    NotUnit {
        /// The argument at fault.
        name: &'static str,
        /// Index of the first offending row.
        row: usize,
        /// Its Euclidean norm.
        norm: f64,
    },
    /// Infinite or NaN entries where finite ones are needed.
    #[error(
        "'{name}' must be finite; entries that are infinite or NaN: {count}, the first at row {row}, \
         column {column}"
    )]
    NotFinite {
        /// The argument at fault.
        name: &'static str,
        /// How many entries are infinite or NaN.
        count: usize,
        /// Row of the first of them.
        row: usize,
        /// Its column.
        column: usize,
    },
}
