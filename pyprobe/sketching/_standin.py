"""Stand-ins until the samplers and scores of rows are there."""

import numpy as np


def _bernoulli(scores, n_samples, key):
    s = np.asarray(scores, dtype=float)
    p0 = s / s.sum()
    if n_samples >= (s > 0).sum():
        p = (s > 0) * 1.0
    else:
        c = float(n_samples)
        p = np.minimum(1, c * p0)
        for _ in range(500):
            c *= n_samples / p.sum()
            p = np.minimum(1, c * p0)
    i = np.flatnonzero(np.random.default_rng(key).random(len(s)) < p)
    return i.astype(np.int64), p[i]


def lewis_weights(a, p, *, tol=1e-2):
    a = np.asarray(a, dtype=float)
    w = np.full(len(a), a.shape[1] / len(a))
    for _ in range(30):
        b = a * (w ** (0.5 - 1 / p))[:, None]
        tau = ((b @ np.linalg.inv(b.T @ b)) * b).sum(1)
        w = w * (tau / w) ** (2 * p / (p + 2))
    return w


def leverage_scores(a):
    q, _ = np.linalg.qr(a)
    return (q**2).sum(1)
