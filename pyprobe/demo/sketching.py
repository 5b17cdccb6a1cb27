"""A stop of the tour: a Bayesian regression on all pixels, and on a hundredth of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyprobe.demo._tour import Tour, timed
from pyprobe.demo.transport import load_photographs
from pyprobe.sketching import GLMCoreset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

__all__ = ["regression_on_pixels"]

Vector = npt.NDArray[np.float64]

_NAMES = (
    "intercept",
    "N - NW",
    "NE - N",
    "W - WW",
    "NW - W",
    "|N - NW|",
    "|W - WW|",
    "(N - NW)(W - WW)",
)
_N_DRAWS, _N_WARMUP = 100, 10


def regression_on_pixels(tour: Tour) -> None:
    """Bayesian regression in Pyro, on all rows and on a hundredth of them.

    A photograph is expanded to one row a pixel; NUTS draws the coefficients of a logistic
    regression given all of them, given a coreset of 1 %, and given plain weighted rows, as many.
    """
    import pyprobe.pyro  # noqa: F401  # without Pyro it says what to install, at once

    x, y = pixels(load_photographs()[0])
    n, d = x.shape
    tour.say(
        f"A photograph that comes with scikit-learn is expanded to {n} rows, one a pixel: is it "
        f"brighter than its left neighbor W, given {d - 1} contrasts between pixels scanned before "
        "it, W, WW, NW, N and NE? As each row is given what came before it, the likelihood of a "
        f"scan is the product over its rows. The prior is N(0, 1) on each of {d} coefficients."
    )
    data: Any = {"family": "logistic", "n_samples": n // 100, "prior_precision": 1.0, "rng": 0}
    coreset, seconds = timed(lambda: GLMCoreset.fit(x, y, **data))
    plain = GLMCoreset.fit(x, y, control_variate=False, **data)
    draws, times = {}, {}
    for name, likelihood in likelihoods(x, y, coreset, plain).items():
        draws[name], times[name] = timed(functools.partial(nuts, likelihood, coreset))
    full = draws["all rows"]
    mean, sd = full.mean(axis=0), full.std(axis=0)
    rows = [["all rows", f"{n}", "", f"{times['all rows']:.2f} s", "", "", ""]]
    for name, kept in (("coreset", coreset), ("plain weights", plain)):
        off = (draws[name].mean(axis=0) - mean) / sd
        wider = np.log(draws[name].std(axis=0) / sd)
        rows.append(
            [
                name,
                f"{len(kept.weights)}",
                f"{seconds:.2f} s" if kept is coreset else "",
                f"{times[name]:.2f} s",
                f"{times['all rows'] / times[name]:.1f}",
                f"{np.sqrt((off**2).mean()):.4f}",
                f"{np.sqrt((wider**2).mean()):.4f}",
            ]
        )
    tour.table(
        "<>>>>>>",
        ["", "rows", "made in", "NUTS", "times faster", "mean off, sd", "log sd off"],
        rows,
    )
    check = coreset.check(x, y, draws=draws["coreset"])
    apart = np.abs((draws["coreset"] - full) / sd).max()
    tour.say(
        f"{_N_DRAWS} draws each, on one thread, whose means have a standard error of about "
        f"{_N_DRAWS**-0.5:.2f} sd. All chains start from one seed, and that of the coreset follows "
        f"that of all rows: no draw differs by more than {apart:.2g} sd. By importance weights, "
        f"{check.reason} The plain weights were expected to be off by "
        f"{plain.info.expected_error:.1f} sd: they serve for minimizing the loss, not for a "
        "posterior."
    )
    tour.figure(
        "regression_on_pixels",
        lambda ax: draw_posteriors(ax, {k: (v - mean) / sd for k, v in draws.items()}),
        size=(8, 5),
    )


def pixels(photograph: npt.NDArray[np.uint8]) -> tuple[Vector, Vector]:
    """Return contrasts between the pixels before each, and whether it is brighter than the last."""
    gray = photograph.mean(axis=-1) / 32
    here, w, ww = gray[1:, 2:-1], gray[1:, 1:-2], gray[1:, :-3]
    north, nw, ne = gray[:-1, 2:-1], gray[:-1, 1:-2], gray[:-1, 3:]
    above, before = north - nw, w - ww
    columns = (
        np.ones_like(here),
        above,
        ne - north,
        before,
        nw - w,
        np.abs(above),
        np.abs(before),
        above * before,
    )
    return np.stack(columns, axis=-1).reshape(-1, len(columns)), (here > w).ravel().astype(float)


def likelihoods(
    x: Vector, y: Vector, coreset: GLMCoreset, plain: GLMCoreset
) -> dict[str, Callable[[Tensor], None]]:
    """Return the three likelihoods, as parts of a Pyro model."""
    import pyro
    import torch
    from pyro.distributions import Bernoulli

    from pyprobe.pyro import glm_coreset_factor, weighted_plate

    rows, labels, few, few_labels, weights = (
        torch.as_tensor(np.array(a)) for a in (x, y, plain.x, plain.y, plain.weights)
    )

    def on_all(theta: Tensor) -> None:
        with pyro.plate("pixels", len(rows)):
            pyro.sample("y", Bernoulli(logits=rows @ theta), obs=labels)

    def on_weighted(theta: Tensor) -> None:
        with weighted_plate("pixels", weights):
            pyro.sample("y", Bernoulli(logits=few @ theta), obs=few_labels)

    return {
        "all rows": on_all,
        "coreset": lambda theta: glm_coreset_factor(coreset, theta),
        "plain weights": on_weighted,
    }


def nuts(likelihood: Callable[[Tensor], None], coreset: GLMCoreset) -> Vector:
    """Draw coefficients, in coordinates where the Laplace approximation is N(0, I)."""
    import pyro
    import torch
    from pyro.distributions import Normal
    from pyro.infer import MCMC, NUTS

    precision = coreset.prior_precision - coreset.center_hessian
    spread = torch.as_tensor(np.linalg.inv(np.linalg.cholesky(precision)).T)
    center = torch.as_tensor(np.array(coreset.center))

    def model() -> None:
        # Masked, so that its density counts for nothing: the prior is that of theta.
        z = pyro.sample("z", Normal(torch.zeros_like(center), 1.0).to_event(1).mask(False))
        theta = center + spread @ z
        pyro.factor("prior", Normal(torch.zeros_like(theta), 1.0).log_prob(theta).sum())
        likelihood(theta)

    # In these coordinates one step size is good for all, and nothing is left to adapt.
    kernel = NUTS(model, step_size=0.7, adapt_step_size=False, adapt_mass_matrix=False)
    pyro.set_rng_seed(0)
    sampler: Any = MCMC(
        kernel,
        num_samples=_N_DRAWS,
        warmup_steps=_N_WARMUP,
        initial_params={"z": torch.zeros_like(center)},
        disable_progbar=True,
    )
    # On one thread: the operations are short, and two would wait for each other on a busy machine.
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sampler.run()
    finally:
        torch.set_num_threads(n_threads)
    draws: Vector = (center + sampler.get_samples()["z"] @ spread.T).numpy()
    return draws


def draw_posteriors(ax: Axes, draws: dict[str, Vector]) -> None:
    """Draw intervals of 50 % and 95 % for each coefficient, in units of the first posterior."""
    heights = np.arange(len(_NAMES))[::-1]
    for i, (name, values) in enumerate(draws.items()):
        low, left, middle, right, high = np.quantile(
            values, [0.025, 0.25, 0.5, 0.75, 0.975], axis=0
        )
        at, color = heights + 0.22 * (1 - i), f"C{i}"
        ax.hlines(at, low, high, color=color, linewidth=1.2)
        ax.hlines(at, left, right, color=color, linewidth=4)
        ax.plot(middle, at, "o", color=color, markersize=5, markeredgecolor="white", label=name)
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    ax.set_yticks(heights, _NAMES)
    ax.set_xlabel("posterior standard deviations from the mean given all rows; 50 % and 95 %")
    ax.set_ylabel("coefficient of the contrast")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(draws), frameon=False)
