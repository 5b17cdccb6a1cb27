"""The kernels of GPUs beside torch's operations, in Triton's interpreter, which needs no GPU."""

import os
import subprocess
import sys
from itertools import product

import pytest

pytest.importorskip("triton")
torch = pytest.importorskip("torch")

NEAR = {"rtol": 1e-12, "atol": 1e-12}


def problems():
    from pyprobe.transport._torch_points import Points

    generator = torch.Generator().manual_seed(0)
    # More rows than a program has, more columns than it sees at once, and more coordinates than
    # are unrolled.
    for n, m, d, dtype in (
        (130, 6, 3, torch.float64),
        (4, 7, 9, torch.float32),
        (5, 6, 1, torch.float64),
    ):
        x = torch.rand(n, d, dtype=dtype, generator=generator)
        y = torch.rand(m, d, dtype=dtype, generator=generator)
        y[3] = x[2]
        for metric in ("sqeuclidean", "euclidean", "cityblock"):
            yield Points(x, y, metric)
        cost = torch.rand(n, m, dtype=dtype, generator=generator)
        cost[1], cost[2, 5] = torch.inf, torch.inf
        yield from (cost, cost.T.contiguous().T)
        # Signs that torch has only taken note of, and steps over what is between.
        yield Points(torch._neg_view(x), torch._neg_view(y), "sqeuclidean")
        yield torch._neg_view(cost.repeat(1, 2)[:, ::2].clamp(max=9))


def compare_iterations(cost):
    from pyprobe.transport import _torch_solver as twin
    from pyprobe.transport import _triton as kernels

    a, b = (torch.arange(n).double() / n for n in cost.shape)  # the first has no weight
    phi, gamma = a.log(), b.log() + 0.1
    for epsilon, penalties, omega in ((0.5, (torch.inf,) * 2, 1.25), (0.1, (0.5, torch.inf), 1.0)):
        steps = twin._Iteration(cost, epsilon, *twin.sides(a, b, epsilon, penalties))
        fused = kernels.Iteration(cost, epsilon, (a, b), penalties)
        for _ in range(2):
            expected, found = steps(phi, gamma, omega), fused(phi, gamma, omega)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, **NEAR)
            phi, gamma = found[:2]


def compare_pairs():
    from pyprobe.metrics import _torch as twin
    from pyprobe.metrics import _triton as kernels

    for kernel, d, dtype in (
        ((0, 1.0), 3, torch.float64),
        ((1, 0.7), 4, torch.float32),
        ((2, 0.7), 9, torch.float64),
        ((3, 0.7), 1, torch.float64),
    ):
        generator = torch.Generator().manual_seed(d)
        x = torch.rand(5, d, dtype=dtype, generator=generator)
        y = torch.rand(9, d, dtype=dtype, generator=generator)
        y[3] = x[2]
        a, b = torch.linspace(0.1, 1, 5).double(), torch.linspace(0.2, -0.5, 9).double()
        wide = x.double(), y.double()
        (xx, _, xy) = twin.twin_sums(kernel, *wide, a, b)
        within = kernels.row_sums(kernel, x, x, a, same=True, slopes=True)
        between = kernels.row_sums(kernel, x, y, b, same=False, slopes=True)
        torch.testing.assert_close(a @ within[0], xx, **NEAR)
        torch.testing.assert_close(a @ between[0], xy, **NEAR)
        gradient, potential = twin.twin_gradient(kernel, wide[0], a, wide[1], b, 0.3, -2.0)
        found = a[:, None] * (0.6 * within[1] - 2.0 * between[1])
        torch.testing.assert_close(found, gradient, **NEAR)
        torch.testing.assert_close(0.6 * within[0] - 2.0 * between[0], potential, **NEAR)
        plain = kernels.row_sums(kernel, x, y, b, same=False, slopes=False)
        assert plain[0].equal(between[0])
        assert plain[1].shape == (5, 0)


def compare():
    from pyprobe import _engine

    cpu = torch.device("cpu")
    for module in ("pyprobe.transport._triton", "pyprobe.metrics._triton"):
        assert _engine._kernels(module, cpu) is sys.modules[module]
    from pyprobe.transport import _torch_solver as twin
    from pyprobe.transport import _triton as kernels
    from pyprobe.transport._torch_points import Points

    found = list(problems())
    for cost in found:
        n, m = cost.shape
        phi, gamma = torch.linspace(-9, 0, n).double(), torch.linspace(-1, -8, m).double()
        phi[0] = gamma[1] = -torch.inf
        for epsilon, (costs, potential) in product(
            (0.1, 1e-4), ((cost, gamma), (cost.T, phi), (cost, gamma - torch.inf))
        ):
            logs = kernels.log_sums(costs, epsilon, potential)
            torch.testing.assert_close(logs, twin.log_sums(costs, epsilon, potential), **NEAR)
        if not isinstance(cost, Points):
            cost[1] = 0.5  # no row may be forbidden whole
        compare_iterations(cost)
        if not isinstance(cost, Points):
            continue
        rows, columns, total = twin.sums(cost, 0.1, phi, gamma)
        in_x, in_y = twin.position_gradient(cost, 0.1, phi, gamma)
        sides = (cost, phi, gamma, rows, in_x), (cost.T, gamma, phi, columns, in_y)
        for costs, one, other, sums, gradient in sides:
            mass, spent, slopes = kernels.moments(costs, 0.1, one, other, slopes=True)
            torch.testing.assert_close(mass, sums, **NEAR)
            torch.testing.assert_close(spent.sum(), total, **NEAR)
            torch.testing.assert_close(slopes, gradient, **NEAR)
            plain = kernels.moments(costs, 0.1, one, other, slopes=False)
            assert plain[0].equal(mass)
            assert plain[1].equal(spent)
            assert plain[2].shape == (len(mass), 0)
    compare_pairs()
    print(len(found), "problems")


@pytest.mark.slow
def test_kernels_say_what_torch_says():
    variables = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", __file__], env=variables, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "21 problems\n"


if __name__ == "__main__":
    compare()
