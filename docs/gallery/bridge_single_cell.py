r"""
Cells between two days
======================

A cell that is measured is destroyed: samples of different days hold different cells, and nothing pairs
them. A bridge between two days says where the cells may have been on a day in between, and here that
day was measured too.

**Data.** Blood stem cells of donors on days 2, 3, 4 and 7, from the competition "Open Problems:
Multimodal Single-Cell Integration" (Kaggle, 2022), reduced to their first principal components. They are
read as Korotin, Gushchin and Burnaev published them with their code, which is under the MIT licence:
``data/full_cite_pcas_50_day_*.npy`` in the repository ngushchin/LightSB on GitHub. On what terms the
measurements themselves may be used, the page of the competition says. They do not come with pyprobe:
this example runs where the environment variable ``PYPROBE_SINGLE_CELL`` names the folder of these files.
"""

import os
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pyprobe import plot
from pyprobe.errors import ConvergenceWarning
from pyprobe.metrics import energy_distance
from pyprobe.transport import LightSchrodingerBridge

folder = os.environ.get("PYPROBE_SINGLE_CELL")
days = {}
if folder is None:
    print("PYPROBE_SINGLE_CELL is not set, so this page has no data, and shows no results.")
else:
    for day in (2, 3, 4, 7):
        cells = np.load(Path(folder, f"full_cite_pcas_50_day_{day}.npy"))
        days[day] = cells.astype(np.float64)
        print(f"day {day}: {len(cells)} cells, {cells.shape[1]} components")

# %%
# A bridge over days
# ------------------
# Two bridges, from day 2 to day 4 and from day 3 to day 7. As in the paper the data are divided by their
# mean standard deviation, and :math:`\varepsilon T = 0.1`; time runs in days. The table gives
# :math:`E|X - Y| - \frac12 E|X - X'| - \frac12 E|Y - Y'|`, half the energy distance, in the unit of the
# data: between cells that the bridge has moved and those that were measured, on the day in between and
# on the last.


def away(x, y, unit):
    return unit * energy_distance(x, y) / 2


bridges = {}
if days:
    print("days    bridge                   fit   held-out loss   between    end")
    for first, between, last in ((2, 3, 4), (3, 4, 7)):
        unit = np.mean([days[day].std(axis=0).mean() for day in (first, between, last)])
        x0, middle, x1 = (days[day] / unit for day in (first, between, last))
        for label, cloud in (
            ("cells of the first day", x0),
            ("cells of both days, mixed", np.concatenate([x0[::2], x1[::2]])),
        ):
            print(f"{first} to {last}  {label:42} {away(cloud, middle, unit):12.2f}")
        for n_components, covariance in ((1, "diag"), (10, "diag"), (1, "full")):
            begin = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred iterations will do
                bridge = LightSchrodingerBridge.fit(
                    x0,
                    x1,
                    epsilon=0.1 / (last - first),
                    horizon=float(last - first),
                    n_components=n_components,
                    covariance=covariance,
                    rng=0,
                )
            seconds = time.perf_counter() - begin
            times = [between - first, last - first]
            halfway, end = bridge.sample_path(x0, times, rng=0).transpose(1, 0, 2)
            label = f"{n_components} component{'s' * (n_components > 1)}, {covariance}"
            print(
                f"{first} to {last}  {label:20} {seconds:6.1f} s {bridge.info.validation_loss:12.1f} "
                f"{away(halfway, middle, unit):12.2f} {away(end, x1, unit):8.2f}"
            )
            bridges[first, n_components] = bridge

# %%
# Losses differ by nats of divergence from the true bridge, and tell the models apart; so does the distance
# at the end, which a bridge should bring to 0. The distance in between does not. Half of the cells of
# either day, moved nowhere, are no worse there than any bridge: that number, by which bridges of these
# data are often compared, rewards the right spread rather than the right way.
#
# In pictures
# -----------
# The first two components of the cells of day 2, as the bridge of ten components moves them; gray are
# the cells that were measured on the day.

if days:
    unit = np.mean([days[day].std(axis=0).mean() for day in (2, 3, 4)])
    rng = np.random.default_rng(0)
    x0, middle, x1 = (rng.permutation(days[day] / unit)[:1500] for day in (2, 3, 4))
    ax = plot.bridge_marginals(bridges[2, 10], x0, times=[0.0, 1.0, 2.0], x1=x1, rng=0)
    ax.figure.set_size_inches(11, 4)
    ax.child_axes[1].scatter(*middle[:, :2].T, s=6, color="0.75", edgecolors="none", zorder=1)
    for day, panel in zip((2, 3, 4), ax.child_axes, strict=True):
        panel.set_title(f"day {day}")
    plt.show()
