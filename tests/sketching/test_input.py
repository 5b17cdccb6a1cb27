"""What comes as rows, tensors of any float type, chunks or columns of pandas; what is refused."""

import numpy as np
import pytest
import scipy.sparse

from pyprobe.errors import DomainError, ShapeError
from pyprobe.sketching import (
    GLMCoreset,
    StreamingCoreset,
    leverage_scores,
    lewis_weights,
    lp_sensitivities,
    sample_rows,
    sketch_operator,
    sketched_lstsq,
    subspace_distortion,
    total_sensitivity,
)


def normals(n=60, d=3):
    return np.random.default_rng(0).standard_normal((n, d))


def streamed(a):
    coreset = StreamingCoreset(20, rng=0)
    coreset.update(a)
    return coreset


SCORES = {
    "leverage_scores": leverage_scores,
    "lewis_weights": lambda a: lewis_weights(a, 1.0),
    "lp_sensitivities": lambda a: lp_sensitivities(a, 1.0),
    "chunks": lambda a: leverage_scores([a[:25], a[25:]]),
    "sketched_lstsq": lambda a: sketched_lstsq(a[:, :2], a[:, 2]).x,
    "rows of a stream": lambda a: streamed(a).rows(),
}


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", SCORES)
def test_half_precision_is_computed_in_single_and_comes_back(name, kind):
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(normals()).to(getattr(torch, kind))
    found, expected = SCORES[name](a), SCORES[name](a.float())
    assert found.dtype == a.dtype
    assert torch.equal(found, expected.to(a.dtype))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_makes_the_same_samples(kind):
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(normals()).to(getattr(torch, kind))
    plain = a.float()
    scores = a[:, 0].abs()
    for options in ({}, {"p": 1.0}, {"scores": scores}):
        found, expected = (sample_rows(rows, 20, rng=1, **options) for rows in (a, plain))
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.weights, expected.weights)
        assert subspace_distortion(a, found) == subspace_distortion(plain, expected)
    assert total_sensitivity(a, 1.0).value == total_sensitivity(plain, 1.0).value
    found, expected = (
        GLMCoreset.fit(
            x, x[:, 0], family="gaussian", n_samples=20, prior_precision=1.0, control_variate=False
        )
        for x in (a, plain)
    )
    np.testing.assert_array_equal(found.center, expected.center)
    by_rows = leverage_scores(a.to_sparse_csr())
    assert by_rows.dtype == a.dtype
    torch.testing.assert_close(by_rows, leverage_scores(a))


def test_a_solution_beyond_its_half_type_is_told():
    torch = pytest.importorskip("torch")
    a = torch.tensor([[1e-4], [2e-4]], dtype=torch.float16)
    b = torch.tensor([60.0, 120.0], dtype=torch.float16)  # x is 6e5; float16 ends at 65 504
    with pytest.raises(DomainError, match="solution too large for their type; scale them"):
        sketched_lstsq(a, b)
    assert float(sketched_lstsq(a.bfloat16(), b.bfloat16()).x) == pytest.approx(6e5, rel=1e-2)


def test_parts_of_complex_tensors_are_read():
    torch = pytest.importorskip("torch")
    a = normals()
    flipped = torch.complex(torch.from_numpy(a), torch.from_numpy(a)).conj().imag
    assert flipped.is_neg()
    np.testing.assert_array_equal(leverage_scores(flipped), leverage_scores(-a))
    with pytest.raises(TypeError, match=r"'a' must hold real numbers; got dtype torch.complex128"):
        leverage_scores(flipped.to(torch.complex128))


META = {
    **SCORES,
    "sample_rows": lambda a: sample_rows(a, 20),
    "scores": lambda a: sample_rows(normals(), 20, scores=a[:, 0]),
    "total_sensitivity": lambda a: total_sensitivity(a, 1.0),
    "distortion": lambda a: sample_rows(normals(), 20).distortion(a),
    "sketch": lambda a: sketch_operator("srht", 16, 60) @ a,
    "coreset": lambda a: GLMCoreset.fit(a, a[:, 0], family="gaussian", n_samples=9),
}


@pytest.mark.parametrize("name", META)
def test_tensors_without_numbers_are_refused(name):
    torch = pytest.importorskip("torch")
    a = torch.empty(60, 3, device="meta", dtype=torch.float64)
    with pytest.raises(TypeError, match=r"must hold numbers; got a tensor on the device 'meta'"):
        META[name](a)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_tensors_are_refused_where_vectors_are_wanted():
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(normals())
    with pytest.raises(TypeError, match=r"'b' must be a dense tensor.*Use .to_dense\(\)"):
        sketched_lstsq(a, a[:, 0].to_sparse())
    with pytest.raises(TypeError, match=r"'a' must be a dense tensor here.*sparse_csr.*SciPy"):
        sample_rows(a, 20, rng=0).apply(a.to_sparse_csr())


MANY = {
    "generator": lambda a: (rows for rows in [a]),
    "list": lambda a: [a, a],
    "function": lambda a: lambda: [a],
}


@pytest.mark.parametrize("kind", MANY)
def test_a_stream_is_fed_chunk_by_chunk(kind):
    coreset = StreamingCoreset(10, rng=0)
    with pytest.raises(TypeError, match=rf"'chunk' must be one matrix.*got a {kind}.*in a loop"):
        coreset.update(MANY[kind](normals()))
    assert coreset.n_rows == 0


def test_only_streams_are_merged():
    with pytest.raises(TypeError, match="'other' must be a StreamingCoreset; got NoneType"):
        StreamingCoreset(10).merge(None)


@pytest.mark.parametrize(
    ("given", "came"),
    [(None, "NoneType"), (3, "int"), (normals(), "ndarray"), (scipy.sparse.eye_array(9), "")],
)
def test_a_function_gives_chunks(given, came):
    sample = sample_rows(normals(), 20, rng=0)
    for function in (leverage_scores, sample.apply):
        with pytest.raises(
            TypeError, match=f"'a' must be a function that gives row chunks.*{came}"
        ):
            function(lambda: given)
    with pytest.raises(ShapeError, match="a row at least; got 0 chunks without any"):
        leverage_scores(list)
    with pytest.raises(ShapeError, match="'a' must have chunks of rows; got 7 among them"):
        sample.apply(lambda: [7])


@pytest.mark.parametrize("p", ["2", b"2", np.str_("1")])
def test_text_is_no_exponent(p):
    for function in (lewis_weights, lp_sensitivities, total_sensitivity):
        with pytest.raises(TypeError, match="'p' must be a number; got "):
            function(normals(), p)
    with pytest.raises(TypeError, match="'p' must be a number; got "):
        sample_rows(normals(), 20, p=p)
    with pytest.raises(TypeError, match="'tol' must be a number; got "):
        lewis_weights(normals(), 1.0, tol=p)


def test_responses_may_be_columns_of_pandas():
    pd = pytest.importorskip("pandas")
    x, y = normals(), np.arange(60) % 3 == 0

    def center(y):
        options = {"family": "logistic", "n_samples": 20, "prior_precision": 1.0}
        return GLMCoreset.fit(x, y, **options, rng=0).center

    expected = center(y)
    numbers = pd.Series(y.astype(int), index=np.arange(60)[::-1])  # rows go by their places
    for kind in ("int64", "Int64", "boolean", "category"):
        np.testing.assert_array_equal(center(numbers.astype(kind)), expected)
    words = pd.Series(np.where(y, "yes", "no"))
    for given in (words.astype("category"), pd.Categorical(words), words.astype(object)):
        name = type(given).__name__
        with pytest.raises(
            TypeError, match=rf"'y' must hold real numbers; got a {name} of dtype .*== level"
        ):
            center(given)
    np.testing.assert_array_equal(center((words == "yes").astype(float)), expected)


def test_columns_of_flags_and_numbers_are_read_together():
    pandas = pytest.importorskip("pandas")
    a = normals()
    a[:, 1] = a[:, 1] > 0
    frame = pandas.DataFrame(
        {"x": a[:, 0], "above": a[:, 1] > 0, "z": pandas.array(a[:, 2], dtype="Float64")}
    )
    np.testing.assert_array_equal(leverage_scores(frame), leverage_scores(a))
    twice = pandas.DataFrame([["10", True], ["3", False]], columns=["a", "a"])
    with pytest.raises(TypeError, match="whose columns a are not"):
        leverage_scores(twice)
    frame["kind"] = ["one", "other"] * 30
    frame["day"] = pandas.Timestamp("2024-01-01")
    with pytest.raises(
        TypeError, match=r"'a' must hold real numbers; got .* columns kind, day are"
    ):
        leverage_scores(frame)
