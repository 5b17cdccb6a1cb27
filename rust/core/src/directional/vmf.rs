//! The von Mises-Fisher distribution: sampling, sufficient statistics, derivatives.
