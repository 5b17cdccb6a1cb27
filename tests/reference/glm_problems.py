"""Data of generalized linear models, their likelihoods, and draws near a mode."""

import numpy as np
from scipy.special import expit, gammaln


def problem(family, n=20_000, d=6, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, d - 1))])
    eta = x @ (rng.normal(size=d) * (0.3 if family == "poisson" else 0.7))
    y = {
        "logistic": lambda: (rng.random(n) < expit(eta)).astype(float),
        "poisson": lambda: rng.poisson(np.exp(eta)).astype(float),
        "gaussian": lambda: eta + rng.normal(size=n),
    }[family]()
    return x, y


def log_likelihood(family, x, y, theta, offset=0.0):
    """Return the textbook's densities, each by itself."""
    eta = x @ theta + offset
    if family == "logistic":
        return np.where(y == 1, np.log(expit(eta)), np.log(expit(-eta))).sum()
    if family == "poisson":
        return (y * eta - np.exp(eta) - gammaln(y + 1)).sum()
    return (-((y - eta) ** 2) / 2 - np.log(2 * np.pi) / 2).sum()


def near(coreset, n, seed=0, sds=1.0):
    """Draw from the Laplace approximation, the sds of it so many times as wide."""
    precision = coreset.prior_precision - coreset.center_hessian
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.linalg.inv(precision))
    return coreset.center + sds * rng.normal(size=(n, coreset.dim)) @ root.T
