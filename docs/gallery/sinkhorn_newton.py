r"""
Sinkhorn's iteration and Newton's method
========================================

Sinkhorn's iteration is simple and, at a small :math:`\varepsilon`, slow. Tang et al. ("Accelerating
Sinkhorn algorithm with sparse Newton iterations", ICLR 2024) follow it by Newton's method on three
kinds of problem: the assignment of random costs, and the transport of one digit to another for two
costs, all at :math:`\varepsilon = \max C / 1200`. This example solves such problems with each of the
methods of ``pyprobe.transport.sinkhorn``, beside the textbook's iteration in NumPy.
"""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.datasets import load_digits

from pyprobe import plot
from pyprobe.errors import ConvergenceWarning
from pyprobe.transport import sinkhorn

# %%
# Three problems
# --------------
# The digits of scikit-learn are of 8 by 8 pixels; enlarged to 28 by 28 they take the place of MNIST's,
# which would have to be downloaded. A hundredth of the brightest pixel is added everywhere, so that
# every pixel carries weight.


def as_weights(image):
    large = zoom(image, 28 / 8, order=1, mode="nearest").clip(0)
    large += 0.01 * large.max()
    return (large / large.sum()).ravel()


digits = load_digits()
zero, one = (as_weights(digits.images[digits.target == label][0]) for label in (0, 1))
pixels = np.indices((28, 28)).reshape(2, -1).T / 27
uniform = np.full(500, 1 / 500)
problems = {
    "random assignment, n = 500": (uniform, uniform, np.random.default_rng(0).random((500, 500))),
    "digits, squared distance": (zero, one, cdist(pixels, pixels, "sqeuclidean")),
    "digits, city-block distance": (zero, one, cdist(pixels, pixels, "cityblock")),
}

# %%
# The textbook
# ------------
# Each half step makes one marginal right. In this form an iteration is two products with a stored
# matrix; the scalings are absorbed into it now and then, before they overflow. The error that is
# followed everywhere is the L1 distance of both marginals from the weights.


def textbook(a, b, cost, epsilon, n_iter):
    f, g, errors = np.zeros(len(a)), np.zeros(len(b)), []
    for _ in range(10):  # in the log domain, to bring the potentials near
        f = -epsilon * logsumexp((g - cost) / epsilon, axis=1, b=b)
        g = -epsilon * logsumexp((f[:, None] - cost) / epsilon, axis=0, b=a[:, None])
    plan = np.outer(a, b) * np.exp((f[:, None] + g - cost) / epsilon)
    v, start = np.ones(len(b)), time.perf_counter()
    for step in range(1, n_iter + 1):
        u = a / (plan @ v)
        columns = u @ plan
        errors.append(abs(v * columns - b).sum())
        v = b / columns
        if step % 50 == 0:
            plan *= u[:, None] * v
            v[:] = 1
    return np.array(errors), time.perf_counter() - start


# %%
# Errors against iterations, and against seconds
# ----------------------------------------------
# ``"log"`` makes the plan anew in each iteration and ``"scaling"`` stores it; both lengthen their steps
# once they know the rate, and begin with the same errors. ``"newton"`` walks down a path of
# falling :math:`\varepsilon`, which is why its error goes up and down at first. ``"auto"``, the default,
# begins like ``"scaling"`` and hands over to Newton where many iterations seem to be left.
#
# An iteration of the textbook's, or of ``"log"``, always costs the same, so their seconds are spread
# evenly over the iterations, of which they are given a thousand. For the other methods each dot is a
# run of its own, to a tolerance from 0.1 to 1e-10.

methods = ("log", "scaling", "newton", "auto")
colors = ("tab:blue", "tab:orange", "tab:green", "tab:red")
fig, axes = plt.subplots(2, 3, figsize=(12, 7), sharey=True, layout="constrained")
for (name, (a, b, cost)), (above, below) in zip(problems.items(), axes.T, strict=True):
    epsilon = cost.max() / 1200
    print(name)
    errors, seconds = textbook(a, b, cost, epsilon, 1000)
    print(f"  textbook  1000 iterations,  0 steps: error {errors[-1]:.0e}, {seconds:5.2f} s")
    counts = np.arange(1, 1001)
    above.plot(10 + counts, errors, color="0.6", label="textbook, NumPy")
    below.plot(seconds * counts / 1000, errors, color="0.6")
    results = {}
    for method, color in zip(methods, colors, strict=True):
        dots = []
        for tol in (1e-10,) if method == "log" else (1e-1, 1e-4, 1e-7, 1e-10):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # "log" may want more than 1000
                start = time.perf_counter()
                result = sinkhorn(
                    a, b, cost, epsilon=epsilon, method=method, tol=tol,
                    max_iter=1000 if method == "log" else 10_000,
                )  # fmt: skip
                dots.append((time.perf_counter() - start, result.marginal_error))
        results[method] = result
        seconds, errors = np.transpose(dots)
        print(
            f"  {method:8} {result.n_iter:5} iterations, {result.n_newton:2} steps: error "
            f"{errors[-1]:.0e}, {seconds[-1]:5.2f} s, certified gap {result.gap:.0e}"
        )
        if method == "log":
            errors = result.errors
            seconds = seconds[-1] * np.arange(1, len(errors) + 1) / len(errors)
        style = "-" if method == "log" else "o-"
        below.plot(seconds, errors, style, color=color, markersize=4)
    above.set_prop_cycle(color=colors)
    plot.convergence(results, ax=above)
    above.set(title=name, xscale="log", ylim=(1e-15, 30), ylabel="")
    below.set(xlabel="seconds", xscale="log", yscale="log")
fig.supylabel("marginal error")
plt.show()

# %%
# How to read it
# --------------
# The gap is the cost of a plan with exactly the right marginals, made from the one found, less a lower
# bound: the optimum lies between the two, whatever the method did.
#
# Newton's method is no cure for everything. For the squared distance Sinkhorn's iteration contracts
# well, and a couple of hundred cheap iterations take about as long as a few dear steps: ``"auto"`` stays
# with them. And lengthened steps are no descent: for the city-block distance, where the rate seems
# settled before it is, the error first rises above that of the textbook's iteration, and takes hundreds of
# iterations to fall below it.
