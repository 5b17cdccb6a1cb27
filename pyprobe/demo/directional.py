"""Stops of the tour: directions in many dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from pyprobe import plot
from pyprobe.datasets import python_docstrings, tf_idf
from pyprobe.demo._tour import Tour, timed
from pyprobe.directional import SphericalUniform, VonMisesFisher, VonMisesFisherMixture
from pyprobe.errors import NumericalWarning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

T = TypeVar("T")

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

    uniform = -SphericalUniform(x.shape[1]).entropy()  # its log-density, everywhere
    rows = []
    for common, corrected in ((False, False), (False, True), (True, False), (True, True)):
        mixture, seconds = timed_fit(train, n_topics, common, corrected)
        training, new = (np.asarray(mixture.log_prob(part)) - uniform for part in (train, test))
        gain, error = mean_and_error(new, groups)
        info: Any = mixture.info
        rows.append(
            [
                ("common" if common else "one a topic") + (", bias-corrected" if corrected else ""),
                f"{np.median(mixture.concentrations):.0f}",
                f"{training.mean():.1f}",
                f"{gain:.1f} ± {error:.1f}",
                f"{len(info.doubtful)}",
                f"{info.n_iter}",
                f"{seconds:.2f} s",
            ]
        )
    tour.table(
        "<>>>>>>",
        ["concentration", "median", "training", "held out ± s.e.", "doubtful", "steps", "time"],
        rows,
    )
    tour.say(
        "Training and held out: mean log-likelihood of a document in nats, above that of the "
        "uniform distribution; the standard error takes a module, not a document, as independent. "
        "Doubtful: topics whose concentration the fit warns of, having fewer documents than words. "
        "Topics of the last mixture, whose common concentration keeps them of like breadth:"
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
        f"Both fits see the same draws; the times are the fastest of three."
    )
    rows = []
    ours, errors, theirs = np.empty((3, len(dims)))
    for i, d in enumerate(dims):
        truth = VonMisesFisher(np.full(d, d**-0.5), float(d))
        x = truth.sample((n,), rng=d)
        fit, seconds = fastest(VonMisesFisher.fit, x)
        info: Any = fit.info
        ours[i], errors[i] = fit.concentration, info.concentration_stderr
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (_, theirs[i]), scipy_seconds = fastest(stats.vonmises_fisher.fit, x)
        rows.append(
            [
                f"{d}",
                f"{ours[i]:.2f} ± {errors[i]:.2f}",
                f"{theirs[i]:.6g}",
                ", ".join({warning.category.__name__ for warning in caught}) or "none",
                f"{1e3 * seconds:.2f} ms",
                f"{1e3 * scipy_seconds:.2f} ms",
            ]
        )
    tour.table(
        ">>>>>>",
        ["d = concentration", "pyprobe ± s.e.", "SciPy", "SciPy's warning", "pyprobe", "SciPy"],
        rows,
    )
    tour.figure("concentration", lambda ax: draw_fits(ax, dims, ours, errors, theirs))


def timed_fit(
    x: Any, n_topics: int, common: bool, corrected: bool
) -> tuple[VonMisesFisherMixture, float]:
    """Fit a mixture; return it and the seconds it took."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)  # said in a column of the table
        return timed(
            lambda: VonMisesFisherMixture.fit(
                x, n_topics, common_concentration=common, bias_correction=corrected, rng=0
            )
        )


def fastest(fit: Callable[[Any], T], x: Any) -> tuple[T, float]:
    """Return ``fit(x)``, and the seconds of the fastest of three calls."""
    results, seconds = zip(*(timed(lambda: fit(x)) for _ in range(3)), strict=True)
    return results[-1], min(seconds)


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
    ax.set_xticks(dims, [str(d) for d in dims])
    ax.minorticks_off()
    ax.set_xlabel("dimension")
    ax.set_ylabel("fitted concentration / truth")
    ax.legend()
