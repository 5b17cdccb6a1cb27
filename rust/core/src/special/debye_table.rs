//! Coefficients of the logarithm of the Debye series.
