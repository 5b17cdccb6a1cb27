"""The estimator in scikit-learn's grammar."""

import warnings

import numpy as np
import pytest
import scipy.sparse

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from pyprobe import directional
from pyprobe.errors import ConvergenceWarning, DomainError, NumericalWarning
from pyprobe.sklearn import VonMisesFisherMixture

NO_CLASSIFIER = "takes whatever has predict_proba for a classifier, and looks at classifier_tags"


@pytest.mark.filterwarnings("ignore::UserWarning")
@parametrize_with_checks(
    [
        VonMisesFisherMixture(),
        VonMisesFisherMixture(n_components=3, kind="hard", common_concentration=True),
    ],
    # scikit-learn 1.9; what they would check is in test_sparse_rows_are_normalized_as_dense_ones.
    expected_failed_checks=lambda estimator: {
        "check_estimator_sparse_array": NO_CLASSIFIER,
        "check_estimator_sparse_matrix": NO_CLASSIFIER,
    },
)
def test_the_estimator_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    lengths = rng.exponential(size=(300, 1)) + 0.1
    return lengths * (np.repeat(np.eye(3, 6), 100, axis=0) + 0.1 * rng.normal(size=(300, 6)))


def test_rows_are_normalized_and_fitted(x):
    estimator = VonMisesFisherMixture(n_components=3, random_state=0).fit(x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    value = estimator.mixture_
    assert isinstance(value, directional.VonMisesFisherMixture)
    np.testing.assert_allclose(estimator.score_samples(x), value.log_prob(unit), atol=1e-12)
    np.testing.assert_array_equal(estimator.predict(x), value.predict(unit))
    np.testing.assert_allclose(estimator.predict_proba(x), value.predict_proba(unit), atol=1e-12)
    assert estimator.score(x) == pytest.approx(value.log_prob(unit).mean())
    assert estimator.aic(x) == pytest.approx(value.aic(unit))
    assert estimator.bic(x) == pytest.approx(value.bic(unit))
    assert estimator.converged_ == value.info.converged
    assert estimator.n_iter_ == value.info.n_iter
    labels = estimator.fit_predict(x)
    assert [len(set(labels[i : i + 100])) for i in (0, 100, 200)] == [1, 1, 1]


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_rows_of_any_length_are_normalized(x, scale):
    a = VonMisesFisherMixture(n_components=3, random_state=0).fit(x)
    b = VonMisesFisherMixture(n_components=3, random_state=0).fit(scale * x)
    np.testing.assert_allclose(a.locs_, b.locs_, rtol=1e-9)


def test_sparse_rows_are_normalized_as_dense_ones(x):
    x = np.where(np.abs(x) > 0.1, x, 0)
    x[5] = 0
    with pytest.warns(NumericalWarning, match="rows are all zero"):
        a = VonMisesFisherMixture(n_components=3, random_state=0).fit(x)
    with pytest.warns(NumericalWarning, match="rows are all zero"):
        b = VonMisesFisherMixture(n_components=3, random_state=0).fit(scipy.sparse.csr_array(x))
    np.testing.assert_allclose(a.locs_, b.locs_, atol=1e-9)
    np.testing.assert_allclose(
        a.score_samples(x), b.score_samples(scipy.sparse.csr_matrix(x)), rtol=1e-9
    )
    np.testing.assert_array_equal(a.predict(x), b.predict(scipy.sparse.csc_array(x)))


def test_rows_of_zeros_get_what_the_docstring_says(x):
    estimator = VonMisesFisherMixture(n_components=3, random_state=0).fit(x[:250])
    rows = np.vstack([x[0], np.zeros(6)])
    values = estimator.score_samples(rows)
    uniform = directional.SphericalUniform(6)
    assert values[1] == pytest.approx(float(uniform.log_prob(np.eye(6)[0])))
    np.testing.assert_allclose(estimator.predict_proba(rows)[1], estimator.weights_)
    assert estimator.predict(rows)[1] == np.argmax(estimator.weights_)
    with pytest.raises(DomainError, match="must have a row that is not all zero"):
        VonMisesFisherMixture().fit(np.zeros((4, 3)))


def test_without_normalizing_rows_must_be_unit_vectors(x):
    with pytest.raises(DomainError, match="must hold unit vectors"):
        VonMisesFisherMixture(normalize=False).fit(x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    VonMisesFisherMixture(normalize=False).fit(unit)


def test_the_estimator_works_in_pipelines_and_searches(x):
    pipeline = make_pipeline(FunctionTransformer(np.asarray), VonMisesFisherMixture(3))
    assert pipeline.fit(x).score(x) > 0
    search = GridSearchCV(
        VonMisesFisherMixture(random_state=0, max_iter=500), {"n_components": [1, 3]}, cv=2
    )
    rng = np.random.default_rng(0)
    assert search.fit(x[rng.permutation(300)]).best_params_ == {"n_components": 3}
    assert clone(search.best_estimator_).n_components == 3


def test_starting_directions_are_normalized_like_the_rows(x):
    first = VonMisesFisherMixture(n_components=2, init=3.5 * x[[0, 150]]).fit(x)
    unit = x[[0, 150]] / np.linalg.norm(x[[0, 150]], axis=1, keepdims=True)
    second = VonMisesFisherMixture(n_components=2, init=unit).fit(x)
    np.testing.assert_allclose(first.locs_, second.locs_, rtol=1e-12)


def test_warnings_point_at_the_line_of_the_caller(x):
    x[5] = 0
    estimator = VonMisesFisherMixture(4, random_state=0, max_iter=1, tol=0.0)
    for fit in (estimator.fit, estimator.fit_predict):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(x)
        assert {NumericalWarning, ConvergenceWarning} <= {warning.category for warning in caught}
        assert {warning.filename for warning in caught} == {__file__}


def test_float32_stays(x):
    estimator = VonMisesFisherMixture(3, random_state=0).fit(x.astype(np.float32))
    assert estimator.locs_.dtype == np.float32
    assert estimator.score_samples(x.astype(np.float32)).dtype == np.float32
