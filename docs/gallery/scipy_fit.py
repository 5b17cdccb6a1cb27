r"""
A von Mises-Fisher fit beside SciPy's
=====================================

``scipy.stats.vonmises_fisher`` has been in SciPy since 1.11. This example fits the same draws with
it and with pyprobe, over a range of dimensions: where do they agree, what does each cost, and what
happens where SciPy's Bessel functions leave the range of double precision?
"""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import scipy
from scipy import stats

from pyprobe.directional import VonMisesFisher

print("SciPy", scipy.__version__)
n = 1000


def draw(d):
    """Draws in d dimensions with concentration d, a moderate spread in every dimension."""
    return VonMisesFisher(np.full(d, d**-0.5), float(d)).sample((n,), rng=d)


def scipy_fit(x):
    """SciPy's estimate, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimate = stats.vonmises_fisher.fit(x)[1]
    return estimate, "; ".join(str(warning.message) for warning in caught)


# %%
# Where both work, they agree
# ---------------------------

for d in (2, 3, 5, 10, 20, 50):
    x = draw(d)
    ours, (theirs, _) = VonMisesFisher.fit(x).concentration, scipy_fit(x)
    print(
        f"d = {d:2}: pyprobe {ours:.10f}, SciPy {theirs:.10f}, apart {abs(ours / theirs - 1):.0e}"
    )

# %%
# Where SciPy stops
# -----------------
# SciPy solves the likelihood equation, a quotient of two scaled Bessel functions, by Brent's method
# in a bracket from :math:`10^{-8}` up. At that end both functions underflow once the dimension is
# large enough. The quotient of zeros is not a number; NumPy warns of the division, the root finder
# stops where it stands, and the end of the bracket comes back as the estimate.

for d in (60, 64, 66, 67, 68, 70, 80, 100, 300, 1000):
    x = draw(d)
    fit, (theirs, warning) = VonMisesFisher.fit(x), scipy_fit(x)
    print(
        f"d = {d:4}: pyprobe {fit.concentration:6.2f} ± {fit.info.concentration_stderr:.2f}, "
        f"SciPy {theirs:7.6g} {warning}"
    )

# %%
# The standard error in ``.info`` is that of the likelihood's curvature; the estimates above lie within
# a few of them.
#
# What a fit costs
# ----------------
# The fastest of five, each on the same array.


def fastest(function, x):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function(x)
        times.append(time.perf_counter() - start)
    return min(times)


dims = np.array([2, 5, 10, 30, 100, 300, 1000])
data = [draw(d) for d in dims]
ours = np.array([fastest(VonMisesFisher.fit, x) for x in data])
theirs = np.array([fastest(scipy_fit, x) for x in data])

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.loglog(dims, 1e3 * ours, "o-", label="pyprobe")
ax.loglog(dims, 1e3 * theirs, "x--", label="scipy.stats")
ax.axvspan(67, dims[-1], color="C1", alpha=0.1, label="SciPy returns 1e-8")
ax.set_xlabel("dimension")
ax.set_ylabel(f"milliseconds for {n} draws")
ax.legend()
plt.show()
