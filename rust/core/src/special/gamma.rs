//! The gamma function and its Taylor and Stirling coefficients.
