"""The kernels of GPUs beside torch's operations, in Triton's interpreter, which needs no GPU."""

import os
import subprocess
import sys
from itertools import product

import pytest

pytest.importorskip("triton")
torch = pytest.importorskip("torch")


def problems():
    from pyprobe.transport._torch_points import Points

    generator = torch.Generator().manual_seed(0)
    # More rows than a program has, more columns than it sees at once, and more coordinates than
    # are unrolled.
    for n, m, d, dtype in (
        (130, 6, 3, torch.float64),
        (4, 14, 9, torch.float32),
        (5, 9, 1, torch.float64),
    ):
        x = torch.rand(n, d, dtype=dtype, generator=generator)
        y = torch.rand(m, d, dtype=dtype, generator=generator)
        y[3] = x[2]
        for metric in ("sqeuclidean", "euclidean", "cityblock"):
            yield Points(x, y, metric)
        cost = torch.rand(n, m, dtype=dtype, generator=generator)
        cost[1], cost[2, 5] = torch.inf, torch.inf
        yield from (cost, cost.T.contiguous().T)


def compare():
    from pyprobe.transport import _torch_solver as twin
    from pyprobe.transport import _triton as kernels
    from pyprobe.transport._torch_points import Points

    assert kernels.runs_on(torch.device("cpu"))
    near = {"rtol": 1e-12, "atol": 1e-12}
    found = list(problems())
    for cost in found:
        n, m = cost.shape
        phi, gamma = torch.linspace(-9, 0, n).double(), torch.linspace(-1, -8, m).double()
        phi[0] = gamma[1] = -torch.inf
        for epsilon, (costs, potential) in product(
            (0.1, 1e-4), ((cost, gamma), (cost.T, phi), (cost, gamma - torch.inf))
        ):
            logs = kernels.log_sums(costs, epsilon, potential)
            torch.testing.assert_close(logs, twin.log_sums(costs, epsilon, potential), **near)
        if not isinstance(cost, Points):
            continue
        rows, columns, total = twin.sums(cost, 0.1, phi, gamma)
        in_x, in_y = twin.position_gradient(cost, 0.1, phi, gamma)
        sides = (cost, phi, gamma, rows, in_x), (cost.T, gamma, phi, columns, in_y)
        for costs, one, other, sums, gradient in sides:
            mass, spent, slopes = kernels.moments(costs, 0.1, one, other, slopes=True)
            torch.testing.assert_close(mass, sums, **near)
            torch.testing.assert_close(spent.sum(), total, **near)
            torch.testing.assert_close(slopes, gradient, **near)
            plain = kernels.moments(costs, 0.1, one, other, slopes=False)
            assert plain[0].equal(mass)
            assert plain[1].equal(spent)
            assert plain[2].shape == (len(mass), 0)
    print(len(found), "problems")


def test_kernels_say_what_torch_says():
    variables = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", __file__], env=variables, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "15 problems\n"


if __name__ == "__main__":
    compare()
