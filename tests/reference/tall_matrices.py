"""Tall matrices of which few rows matter much: what scores and samples of rows are tested on."""

import numpy as np


def coherent(n, d, seed=0, *, share=0.02):
    """Return heavy-tailed rows; a share of them, and the first 20, have any of the last columns."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, d)) * rng.standard_t(1.5, size=(n, 1))
    a[20:, -2:] *= rng.random((n - 20, 2)) < share
    return a
