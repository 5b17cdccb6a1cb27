"""The passes of torch beside those of the kernels, on the CPU, where both run."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tall_matrices import coherent

from pyprobe.errors import NotFiniteError
from pyprobe.sketching import leverage_scores, lewis_weights, sample_rows
from pyprobe.sketching._torch_passes import TensorRows


def rows():
    a = coherent(3000, 7)
    a[5] = 0
    return a


def cases():
    a = rows()
    yield "plain", a
    yield "dependent", np.column_stack([a, a[:, :2] @ [1.0, 2.0], np.zeros(len(a))])
    yield "scales", a * 10.0 ** np.linspace(-150, 150, 7)
    yield "ill-conditioned", np.linspace(0, 1, 3000)[:, None] ** np.arange(10)


@pytest.mark.parametrize(("name", "a"), list(cases()))
def test_scores_weights_and_samples_agree(name, a):
    rows = TensorRows("a", torch.tensor(a))
    tolerance = 1e-6 if name == "ill-conditioned" else 1e-10
    found = leverage_scores(rows)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, leverage_scores(a), rtol=tolerance, atol=1e-14)
    for p in (1.0, 4.0):
        found = lewis_weights(rows, p)
        np.testing.assert_allclose(found, lewis_weights(a, p), rtol=10 * tolerance, atol=1e-14)
    for p in (1, 2):
        here, there = (sample_rows(x, 300, p=p, rng=1) for x in (rows, a))
        np.testing.assert_array_equal(here.indices, there.indices)
        np.testing.assert_allclose(here.weights, there.weights, rtol=10 * tolerance)


def test_float32_is_summed_in_double_precision():
    a = rows().astype(np.float32)
    found = leverage_scores(TensorRows("a", torch.tensor(a)))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, leverage_scores(a), rtol=1e-5)


def test_bad_entries_are_named():
    a = rows()
    a[17, 2] = np.nan
    with pytest.raises(NotFiniteError, match=r"'a' must be finite.*row 17, column 2"):
        leverage_scores(TensorRows("a", torch.tensor(a)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_tensors_of_a_gpu_give_the_same_sample():
    a = rows()
    there = sample_rows(torch.tensor(a, device="cuda"), 300, rng=1)
    np.testing.assert_array_equal(there.indices, sample_rows(a, 300, rng=1).indices)
    scores = leverage_scores(torch.tensor(a, device="cuda"))
    assert scores.device.type == "cuda"
    np.testing.assert_allclose(scores.cpu(), leverage_scores(a), rtol=1e-10, atol=1e-14)
