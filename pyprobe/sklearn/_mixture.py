"""Mixtures of von Mises-Fisher distributions as an estimator."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pyprobe import directional
from pyprobe._warn import warn
from pyprobe.errors import DomainError, NumericalWarning
from pyprobe.typing import FloatArray

__all__ = ["VonMisesFisherMixture"]


class VonMisesFisherMixture(DensityMixin, BaseEstimator):
    """Mixture of von Mises-Fisher distributions: density and clusters of directions.

    Parameters
    ----------
    n_components : int, default 1
        Number of components.
    kind : {"soft", "hard"}, default "soft"
        Whether a row is shared among the components, or belongs to the likeliest one.
    common_concentration : bool, default False
        Whether all components share one concentration.
    bias_correction : bool, default False
        Whether concentrations are corrected for small numbers of samples.
    init : "k-means++" or array_like of shape (n_components, n_features)
        The start, or directions to start from, of any length where `normalize` is set.
    n_init : int, default 1
        Starts; the best fit is kept.
    max_iter : int, default 100
        The most iterations of a start.
    tol : float, default 1e-6
        A start ends when the mean log-likelihood of a sample rises by no more than this; with
        `bias_correction`, when it changes by no more.
    normalize : bool, default True
        Divide rows by their norms, since an estimator has to take any data. A row of zeros has no
        direction: it is left out of the fit, with a warning; later it gets the log-density of the
        uniform distribution, the mixture's weights as probabilities, and the heaviest component as
        label. With ``normalize=False`` rows must be unit vectors.
    random_state : int, RandomState or None
        Seed of the starts.

    Attributes
    ----------
    mixture_ : pyprobe.directional.VonMisesFisherMixture
        The fitted value, with all its methods.
    weights_ : ndarray, shape (n_components,)
        Probabilities of the components.
    locs_ : ndarray, shape (n_components, n_features)
        Mean directions.
    concentrations_ : ndarray, shape (n_components,)
        Concentrations.
    converged_ : bool
        Whether the fit converged.
    n_iter_ : int
        Iterations of the best start.
    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    pyprobe.directional.VonMisesFisherMixture.fit : The options in full.

    Examples
    --------
    >>> import numpy as np
    >>> from pyprobe.sklearn import VonMisesFisherMixture
    >>> x = np.repeat([[9.0, 0, 0], [0, 9.0, 0]], 100, axis=0)
    >>> x += np.random.default_rng(0).normal(size=x.shape)
    >>> labels = VonMisesFisherMixture(n_components=2, random_state=0).fit_predict(x)
    >>> np.bincount(labels).tolist(), len(set(labels[:100]))
    ([100, 100], 1)
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        kind: Literal["soft", "hard"] = "soft",
        common_concentration: bool = False,
        bias_correction: bool = False,
        init: Any = "k-means++",
        n_init: int = 1,
        max_iter: int = 100,
        tol: float = 1e-6,
        normalize: bool = True,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.kind = kind
        self.common_concentration = common_concentration
        self.bias_correction = bias_correction
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.normalize = normalize
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  # scikit-learn's signature
        """Fit the mixture to the rows of `X`; `y` is ignored.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n_samples, n_features)
            At least two features.
        y : None
            Ignored.

        Returns
        -------
        VonMisesFisherMixture
            The estimator itself.
        """
        x, nonzero = self._directions(X, reset=True)
        if not nonzero.all():
            count = int((~nonzero).sum())
            if count == len(nonzero):
                raise DomainError(f"'X' must have a row that is not all zero; got {count} of them.")
            warn(
                f"{count} of {len(nonzero)} rows are all zero and have no direction; they are left "
                "out of the fit.",
                NumericalWarning,
            )
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        self.mixture_ = directional.VonMisesFisherMixture.fit(
            x[nonzero],
            self.n_components,
            kind=self.kind,
            common_concentration=self.common_concentration,
            bias_correction=self.bias_correction,
            init=self._start(),
            n_init=self.n_init,
            max_iter=self.max_iter,
            tol=self.tol,
            rng=int(seed),
        )
        self.weights_ = self.mixture_.weights
        self.locs_ = self.mixture_.locs
        self.concentrations_ = self.mixture_.concentrations
        info = self.mixture_.info
        assert info is not None  # a fitted mixture has one
        self.converged_ = info.converged
        self.n_iter_ = info.n_iter
        return self

    def fit_predict(self, X: Any, y: Any = None) -> npt.NDArray[np.int64]:  # noqa: ARG002
        """Fit the mixture and return the likeliest component of every row."""
        return self.fit(X).predict(X)

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Return the likeliest component of every row."""
        check_is_fitted(self)
        x, nonzero = self._directions(X)
        labels = np.full(len(nonzero), np.argmax(self.weights_), dtype=np.int64)
        labels[nonzero] = self.mixture_.predict(x[nonzero])
        return labels

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the posterior probabilities of the components, shape (n_samples, n_components)."""
        check_is_fitted(self)
        x, nonzero = self._directions(X)
        shares = np.tile(self.weights_, (len(nonzero), 1))
        shares[nonzero] = self.mixture_.predict_proba(x[nonzero])
        return shares

    def score_samples(self, X: Any) -> FloatArray:
        """Return the log-density of the direction of every row."""
        check_is_fitted(self)
        x, nonzero = self._directions(X)
        uniform = directional.SphericalUniform(self.n_features_in_)
        values = np.full(len(nonzero), -uniform.entropy(), dtype=x.dtype)
        values[nonzero] = self.mixture_.log_prob(x[nonzero])
        return values

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        """Return the mean log-density of the rows; `y` is ignored."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    def aic(self, X: Any) -> float:
        """Return Akaike's information criterion; lower is better."""
        values = self.score_samples(X)
        return 2 * self.mixture_.n_parameters - 2 * float(values.sum(dtype=np.float64))

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion; lower is better."""
        values = self.score_samples(X)
        penalty = self.mixture_.n_parameters * float(np.log(len(values)))
        return penalty - 2 * float(values.sum(dtype=np.float64))

    def _directions(self, X: Any, *, reset: bool = False) -> tuple[Any, npt.NDArray[np.bool_]]:
        """Return rows of norm 1, and which rows were not zero."""
        x = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            ensure_min_features=2 if reset else 1,
        )
        if not self.normalize:
            return x, np.ones(x.shape[0], dtype=bool)
        if scipy.sparse.issparse(x):
            x = x.copy()
            x.eliminate_zeros()
            row = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
            largest = np.zeros(x.shape[0], dtype=x.dtype)
            np.maximum.at(largest, row, np.abs(x.data))
            x.data /= largest.clip(min=np.finfo(x.dtype).tiny)[row]
            x.data /= np.sqrt(np.bincount(row, x.data.astype(np.float64) ** 2))[row]
            return x, largest > 0
        # By the largest entry first: the squares of any finite numbers then neither overflow nor
        # vanish.
        largest = np.abs(x).max(axis=1)
        x = x / np.where(largest > 0, largest, 1)[:, None]
        norms = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
        x /= np.where(largest > 0, norms, 1)[:, None]
        return x, largest > 0

    def _start(self) -> Any:
        """Return `init`, its rows divided by their norms where those of the samples are."""
        if isinstance(self.init, str) or not self.normalize:
            return self.init
        locs = np.asarray(self.init, dtype=np.float64)
        norms = np.linalg.norm(locs, axis=-1, keepdims=True)
        return locs / np.where(norms > 0, norms, 1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
