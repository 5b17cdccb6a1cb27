"""Sketch operators: against their definitions, whole and in parts, and in every kind of array."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

import pyprobe
from pyprobe import _core
from pyprobe.errors import DomainError, NotFiniteError, ShapeError
from pyprobe.sketching import sketch_operator
from pyprobe.sketching.operators import KINDS

M, N, D = 40, 1000, 3


@pytest.fixture
def a(seed):
    return np.random.default_rng(seed).normal(size=(N, D))


@pytest.fixture
def threads():
    before = pyprobe.get_num_threads()
    yield pyprobe.set_num_threads
    pyprobe.set_num_threads(before)


def operator(kind, m=M, n=N, **options):
    return sketch_operator(kind, m, n, rng=3, **options)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16, 32, 64])
def test_the_transform_is_that_of_sylvesters_matrix(n):
    found = _core.sketch_walsh_hadamard(np.eye(n))
    np.testing.assert_array_equal(found, scipy.linalg.hadamard(n))


def test_the_transform_twice_is_n_times_the_input(seed):
    x = np.random.default_rng(seed).integers(-9, 9, size=(2**15, 5)).astype(float)
    twice = _core.sketch_walsh_hadamard(_core.sketch_walsh_hadamard(x))
    np.testing.assert_array_equal(twice, 2**15 * x)


def test_an_srht_is_signs_a_transform_and_rows():
    n = 50
    matrix = operator("srht", 20, n).to_array()
    np.testing.assert_allclose(np.abs(matrix), 1 / np.sqrt(20), rtol=1e-15)
    entries = np.sign(matrix)
    # The signs of the columns drop out of the product of two rows, which is a row of the transform.
    rows = {tuple(row) for row in scipy.linalg.hadamard(64)[:, :n]}
    assert all(tuple(entries[0] * row) in rows for row in entries)
    assert len({tuple(row) for row in entries}) == 20


def test_a_sparse_sketch_has_its_entries_in_every_column():
    for kind, nonzeros in (("sparse_sign", 8), ("countsketch", 1)):
        matrix = operator(kind).to_array()
        assert ((matrix != 0).sum(axis=0) == nonzeros).all()
        np.testing.assert_allclose(np.abs(matrix[matrix != 0]), nonzeros**-0.5, rtol=1e-15)
    assert operator("sparse_sign", 5).n_nonzeros == 5


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_with_the_matrix(kind, a, seed):
    s = operator(kind)
    matrix = s.to_array()
    assert matrix.shape == s.shape == (M, N)
    assert s.T.shape == (N, M)
    assert s.T.T is s
    y = np.random.default_rng(seed).normal(size=(M, 2))
    np.testing.assert_allclose(s @ a, matrix @ a, atol=1e-12)
    np.testing.assert_allclose(s @ a[:, 0], matrix @ a[:, 0], atol=1e-12)
    np.testing.assert_allclose(s.T @ y, matrix.T @ y, atol=1e-12)
    np.testing.assert_allclose(s.T @ y[:, 0], matrix.T @ y[:, 0], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_chunks_add_up(kind, a):
    s = operator(kind)
    for ends in ([0, 1, 2, N], [0, 500, 500, N], list(range(0, N + 1, 100))):
        parts = [s.apply(a[i:j], i) for i, j in itertools.pairwise(ends)]
        np.testing.assert_allclose(sum(parts), s @ a, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_no_bit(kind, threads, seed):
    x = np.random.default_rng(seed).normal(size=(70_000, 4))
    s = operator(kind, 64, len(x))
    y = x[:64]
    threads(1)
    alone = s @ x, s.T @ y
    threads(2)
    np.testing.assert_array_equal(s @ x, alone[0])
    np.testing.assert_array_equal(s.T @ y, alone[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_and_a_generator_advances(kind, a):
    first = sketch_operator(kind, M, N, rng=7) @ a
    np.testing.assert_array_equal(sketch_operator(kind, M, N, rng=7) @ a, first)
    generator = np.random.default_rng(7)
    draws = [sketch_operator(kind, M, N, rng=generator) @ a for _ in range(2)]
    assert not np.allclose(draws[0], draws[1])


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_float32_and_strided_inputs_give_the_same(kind, a):
    s = operator(kind, allow_dense=True)
    holes = np.where(np.abs(a) > 0.5, a, 0.0)
    np.testing.assert_allclose(s @ scipy.sparse.csr_array(holes), s @ holes, atol=1e-12)
    single = a.astype(np.float32)
    found = s @ single
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (s @ single.astype(np.float64)).astype(np.float32))
    np.testing.assert_array_equal(s @ np.asfortranarray(a), s @ a)
    np.testing.assert_array_equal(s @ np.repeat(a, 2, axis=0)[::2], s @ a)
    np.testing.assert_array_equal(s @ np.ones((N, 1), dtype=int), s @ np.ones((N, 1)))


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_squared_lengths_is_the_squared_length(kind, seed):
    # 400 draws: a z-test at 4.9 standard errors fails once in 10^6 runs, and finds a factor that is
    # off by about 10 %.
    x = np.random.default_rng(seed).normal(size=(100, 1)) * np.arange(1, 101)[:, None]
    squares = [
        float(np.square(sketch_operator(kind, 16, 100, rng=i) @ x).sum()) for i in range(400)
    ]
    error = np.std(squares) / 20
    assert abs(np.mean(squares) - float(np.square(x).sum())) < 4.9 * error


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_the_gram_matrix_is_the_identity(kind):
    # Entries of S'S have variance at most about 2/m; over 2000 draws the largest of 45 errors stays
    # below 5.4 standard errors with probability 1 - 3e-6.
    draws = [sketch_operator(kind, 8, 9, rng=i).to_array() for i in range(2000)]
    mean = np.mean([s.T @ s for s in draws], axis=0)
    assert np.abs(mean - np.eye(9)).max() < 5.4 * np.sqrt(2 / 8 / 2000)


def test_a_full_srht_is_orthogonal(a):
    s = operator("srht", 1024)
    np.testing.assert_allclose((s @ a).T @ (s @ a), a.T @ a, atol=1e-10)
    np.testing.assert_allclose(s.T @ (s @ a), a, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_columns_stay_none(kind):
    s = operator(kind)
    assert (s @ np.empty((N, 0))).shape == (M, 0)
    assert (s.T @ np.empty((M, 0))).shape == (N, 0)
    torch = pytest.importorskip("torch")
    assert (s @ torch.empty(N, 0)).shape == (M, 0)
    assert (s.T @ torch.empty(M, 0)).shape == (N, 0)


# Bad input.


def test_a_kind_that_does_not_exist_is_named():
    with pytest.raises(DomainError, match=r"'kind' must be one of 'srht', .*got 'dct'"):
        sketch_operator("dct", 4, 10)


def test_too_many_rows_of_an_srht_name_the_most():
    with pytest.raises(DomainError, match=r"'n_rows' must be at most 1024 .*got 1025"):
        sketch_operator("srht", 1025, 1000)
    assert sketch_operator("srht", 1024, 1000).shape == (1024, 1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_rows": 0}, "'n_rows' must be at least 1; got 0"),
        ({"n_input": 0}, "'n_input' must be at least 1; got 0"),
        ({"n_nonzeros": 0}, "'n_nonzeros' must be at least 1; got 0"),
        ({"n_rows": 2**31}, "'n_rows' must be less than 2"),
    ],
)
def test_numbers_below_one_are_refused(options, message):
    with pytest.raises(DomainError, match=message):
        sketch_operator(**({"kind": "sparse_sign", "n_rows": 4, "n_input": 10} | options))


def test_sparse_data_need_permission_for_an_srht():
    s = operator("srht")
    with pytest.raises(DomainError, match=r"'a' is sparse.*allow_dense=True.*sparse_sign"):
        s @ scipy.sparse.eye_array(N, D, format="csr")
    with pytest.raises(TypeError, match="'allow_dense' must be True or False; got 1"):
        operator("srht", allow_dense=1)


@pytest.mark.parametrize("kind", KINDS)
def test_entries_that_are_not_finite_are_named(kind, a):
    a[17, 2] = np.nan
    with pytest.raises(NotFiniteError, match=r"'a' must be finite; got 1 .*\(17, 2\)"):
        operator(kind) @ a
    sparse = scipy.sparse.csr_array(a)
    with pytest.raises(NotFiniteError, match="row 17, column 2"):
        operator(kind, allow_dense=True) @ sparse
    with pytest.raises(NotFiniteError, match="'y' must be finite"):
        operator(kind).T @ np.full(M, np.inf)


def test_sums_that_overflow_are_an_error(a):
    with pytest.raises(DomainError, match="'a' has entries so large"):
        operator("srht") @ np.full((N, 1), 1e308)


def test_shapes_that_do_not_fit_are_named(a):
    s = operator("srht")
    with pytest.raises(ShapeError, match=r"'a' must have 1000 rows.*got \(999, 3\)"):
        s @ a[1:]
    with pytest.raises(ShapeError, match=r"'chunk' must have c, with 500 \+ c at most 1000 rows"):
        s.apply(a, 500)
    with pytest.raises(ShapeError, match=r"'y' must have 40 rows.*got \(3, 3\)"):
        s.T @ a[:3]
    with pytest.raises(ShapeError, match="'a' must be a matrix"):
        s @ a[None]
    with pytest.raises(TypeError, match="'a' must hold real numbers; got dtype complex128"):
        s @ (1j * a)
    with pytest.raises(DomainError, match="'start' must be at least 0; got -1"):
        s.apply(a, -1)


# Tensors.


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_go_through_the_same_kernel(kind, a):
    torch = pytest.importorskip("torch")
    s = operator(kind)
    found = s @ torch.from_numpy(a)
    np.testing.assert_array_equal(found.numpy(), s @ a)
    assert (s @ torch.from_numpy(a).float()).dtype == torch.float32
    assert (s @ torch.from_numpy(a).bfloat16()).dtype == torch.bfloat16
    np.testing.assert_array_equal((s @ torch.from_numpy(a[:, 0])).numpy(), s @ a[:, 0])
    y = torch.from_numpy(a[:M])
    np.testing.assert_array_equal((s.T @ y).numpy(), s.T @ a[:M])


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_is_the_same_operator(kind, a):
    torch = pytest.importorskip("torch")
    from pyprobe.sketching import _torch

    s = operator(kind)
    x = torch.from_numpy(a)
    np.testing.assert_allclose(_torch.twin_product(s, x, 0).numpy(), s @ a, atol=1e-12)
    chunk = _torch.twin_product(s, x[300:700], 300).numpy()
    np.testing.assert_allclose(chunk, s.apply(a[300:700], 300), atol=1e-12)
    back = _torch.twin_transposed_product(s, x[:M]).numpy()
    np.testing.assert_allclose(back, s.T @ a[:M], atol=1e-12)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 200), (63, 65), (130, 131), (2**40 - 5, 2**40 + 70)]
)
def test_the_twin_draws_the_same_columns(start, stop):
    torch = pytest.importorskip("torch")
    from pyprobe.sketching import _torch_random

    cpu = torch.device("cpu")
    for key in (0, 1, (1 << 128) - 3, 0x0123456789ABCDEF0FEDCBA987654321):
        # Up to the most rows, for products of all lengths; and places that are taken often.
        for m, z in ((1, 1), (5, 5), (40, 8), (1000, 1), (2**31 - 1, 3)):
            record = ("sparse_sign", m, 2**41, z, key, None)
            places, signs = _core.sketch_sparse_columns(record, start, stop)
            found = _torch_random.sparse_columns((m, z), key, start, stop, cpu)
            np.testing.assert_array_equal(found[0].numpy(), places)
            np.testing.assert_array_equal(found[1].numpy(), signs)
        for m in (1, 33, 64, 200):
            record = ("gaussian", m, 2**41, 1, key, None)
            normals = _core.sketch_gaussian_columns(record, start, stop)
            found = _torch_random.normal_columns(m, key, start, stop, cpu) / m**0.5
            # Logarithms of radii are the least exact where these are small.
            np.testing.assert_allclose(found.numpy(), normals, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("n", [1, 4095, 4097, 10_000])
def test_the_twin_draws_the_same_signs(n):
    torch = pytest.importorskip("torch")
    from pyprobe.sketching import _torch_random

    for key in (0, (1 << 128) - 3):
        found = _torch_random.random_signs(n, key, torch.device("cpu"))
        np.testing.assert_array_equal(found.numpy(), _core.sketch_srht_signs(n, key))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_a_linear_map(kind):
    torch = pytest.importorskip("torch")
    s = sketch_operator(kind, 5, 12, rng=0)
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(12, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: s @ x, x)
    assert torch.autograd.gradcheck(lambda x: s.apply(x[3:9], 3), x)
    assert torch.autograd.gradcheck(lambda x: s.T @ x[:5], x)
    assert torch.autograd.gradgradcheck(lambda x: (s @ x) ** 3, x)


def test_other_tensors_are_refused(a):
    torch = pytest.importorskip("torch")
    s, x = operator("srht"), torch.from_numpy(a)
    with pytest.raises(TypeError, match="dense tensor"):
        s @ x.to_sparse()
    with pytest.raises(TypeError, match="real numbers"):
        s @ x.to(torch.complex128)
    with pytest.raises(RuntimeError, match=r"forward mode|torch.func"):
        torch.func.jvp(lambda x: s @ x, (x,), (x,))
    with pytest.raises(ShapeError, match="1000 rows"):
        s @ x[1:]
