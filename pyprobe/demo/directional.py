"""Stops of the tour: directions in many dimensions."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from pyprobe import plot
from pyprobe.datasets import python_docstrings, tf_idf
from pyprobe.demo._tour import Tour
from pyprobe.directional import SphericalUniform, VonMisesFisher, VonMisesFisherMixture
from pyprobe.errors import NumericalWarning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["concentration_beside_scipy", "topics_of_docstrings"]


def topics_of_docstrings(tour: Tour) -> None:
    """Topics in the documentation of Python, NumPy and SciPy.

    A mixture of von Mises-Fisher distributions is fitted to the directions of the documents in the
    space of words, on four fifths of the modules, and judged on the rest. Each topic has far fewer
    documents than there are words, so the concentration that maximizes the likelihood is too high:
    the corrections show on the modules held out.
    """
    n_topics = 20
    documents = python_docstrings()
    x, vocabulary = tf_idf(documents)
    modules, module_of = np.unique([d.module for d in documents], return_inverse=True)
    # Whole modules are held out, since the documents of one module repeat each other's sentences.
    held_out = np.random.default_rng(0).random(modules.size)[module_of] < 0.2
    train, test, groups = x[~held_out], x[held_out], module_of[held_out]
    tour.say(
        f"{x.shape[0]} docstrings of {modules.size} modules, as directions in the space of "
        f"{x.shape[1]} words. {n_topics} topics are fitted to {train.shape[0]} of them; the other "
        f"{test.shape[0]} belong to modules held out."
    )

    uniform_train, uniform_test = (
        SphericalUniform(x.shape[1]).log_prob(part) for part in (train, test)
    )
    rows = []
    for label, options in {
        "one a topic": {},
        "one a topic, bias-corrected": {"bias_correction": True},
        "common": {"common_concentration": True},
        "common, bias-corrected": {"common_concentration": True, "bias_correction": True},
    }.items():
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumericalWarning)  # said in a column of the table
            mixture = VonMisesFisherMixture.fit(train, n_topics, rng=0, **options)
        seconds = time.perf_counter() - start
        gain, error = mean_and_error(mixture.log_prob(test) - uniform_test, groups)
        rows.append(
            [
                label,
                f"{np.median(mixture.concentrations):.0f}",
                f"{np.mean(mixture.log_prob(train) - uniform_train):.1f}",
                f"{gain:.1f} ± {error:.1f}",
                f"{len(mixture.info.doubtful)}",
                f"{mixture.info.n_iter}",
                f"{seconds:.2f} s",
            ]
        )
    tour.table(
        "<>>>>>>",
        ["concentration", "median", "fitted", "held out ± s.e.", "doubtful", "steps", "time"],
        rows,
    )
    tour.say(
        "Fitted and held out: mean log-likelihood of a document in nats, above that of the uniform "
        "distribution; the standard error takes a module, not a document, as independent. Doubtful: "
        "topics whose concentration the fit warns of, having fewer documents than words. Topics "
        "of the last mixture, whose common concentration keeps them of like breadth:"
    )
    order = np.argsort(-mixture.weights)
    tour.table(
        "><",
        ["share", "words"],
        [
            [f"{mixture.weights[k]:.1%}", " ".join(vocabulary[np.argsort(-mixture.locs[k])[:9]])]
            for k in order
        ],
    )
    tour.figure(
        "topics_of_docstrings",
        lambda ax: plot.mixture_topics(mixture, vocabulary, ax=ax),
        size=(9.5, 6.5),
    )


def concentration_beside_scipy(tour: Tour) -> None:
    """One von Mises-Fisher fit, beside SciPy's.

    Samples of growing dimension and known concentration, fitted by pyprobe and by
    `scipy.stats.vonmises_fisher`.
    """
    n, dims = 1000, (3, 10, 30, 60, 100, 300, 1000)
    tour.say(
        f"{n} draws from a von Mises-Fisher distribution in d dimensions, with concentration d. "
        f"Both fits see the same draws."
    )
    rows = []
    ours, errors, theirs = np.empty((3, len(dims)))
    for i, d in enumerate(dims):
        truth = VonMisesFisher(np.full(d, d**-0.5), float(d))
        x = truth.sample((n,), rng=d)
        start = time.perf_counter()
        fit = VonMisesFisher.fit(x)
        seconds = time.perf_counter() - start
        ours[i], errors[i] = fit.concentration, fit.info.concentration_stderr
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            theirs[i] = stats.vonmises_fisher.fit(x)[1]
        scipy_seconds = time.perf_counter() - start
        rows.append(
            [
                f"{d}",
                f"{ours[i]:.2f} ± {errors[i]:.2f}",
                f"{theirs[i]:.6g}",
                f"{len(caught)}",
                f"{1e3 * seconds:.2f} ms",
                f"{1e3 * scipy_seconds:.2f} ms",
            ]
        )
    tour.table(
        ">>>>>>",
        ["d = concentration", "pyprobe ± s.e.", "SciPy", "SciPy's warnings", "pyprobe", "SciPy"],
        rows,
    )
    tour.figure("concentration", lambda ax: draw_fits(ax, dims, ours, errors, theirs))


def mean_and_error(
    values: npt.NDArray[np.floating[Any]], groups: npt.NDArray[np.intp]
) -> tuple[float, float]:
    """Return the mean and its standard error, where the values within a group may depend."""
    mean = float(values.mean())
    sums = np.bincount(groups, values - mean)
    return mean, float(np.sqrt(sums @ sums)) / values.size


def draw_fits(
    ax: Axes,
    dims: tuple[int, ...],
    ours: npt.NDArray[np.float64],
    errors: npt.NDArray[np.float64],
    theirs: npt.NDArray[np.float64],
) -> None:
    """Draw both estimates, divided by the truth, over the dimension."""
    truth = np.array(dims, dtype=np.float64)
    ax.axhline(1, color="0.7", linewidth=1)
    ax.errorbar(truth, ours / truth, errors / truth, fmt="o", capsize=3, label="pyprobe ± s.e.")
    ax.plot(
        truth, theirs / truth, "x", color="C1", markersize=9, label="scipy.stats.vonmises_fisher"
    )
    ax.set_xscale("log")
    ax.set_xlabel("dimension")
    ax.set_ylabel("fitted concentration / truth")
    ax.legend()
