"""Problems that the tests of transport share, each with the properties that make it hard."""

import numpy as np


def uniform(n):
    return np.full(n, 1 / n)


def skewed(rng, n, zeros=0.0):
    weights = np.exp(rng.normal(0, 2, n))
    weights[rng.random(n) < zeros] = 0
    weights[0] = 1
    return weights / weights.sum()


def assignment(rng, n):
    return uniform(n), uniform(n), rng.random((n, n))


def clouds(rng, n, m, d=2):
    x, y = rng.normal(size=(n, d)), 0.8 * rng.normal(size=(m, d)) + 0.5
    return skewed(rng, n), skewed(rng, m), ((x[:, None] - y) ** 2).sum(-1)


def grid(rng, k, power=1):
    """Two random pictures of k by k pixels, with distances in the plane."""
    points = np.stack(np.meshgrid(np.arange(k), np.arange(k)), -1).reshape(-1, 2) / k
    cost = (np.abs(points[:, None] - points) ** power).sum(-1)
    return skewed(rng, k * k), skewed(rng, k * k), cost


def marginal_error(plan, a, b):
    return np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
