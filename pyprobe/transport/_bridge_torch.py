"""A bridge on torch tensors: as a module that learns, and behind the methods of the value.

`Forms` holds the closed forms. `TorchBridge` is a module whose parameters they are differentiable
in; `call` runs a method of the value on tensors, by the native path where nothing asks for a
gradient and they lie on the CPU, or the kernels give it; and otherwise by the forms of a bridge
that stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from pyprobe import _rng
from pyprobe._autograd import check_eager, is_plain
from pyprobe._validate import check_positive_float, check_positive_int
from pyprobe.errors import DomainError, ShapeError
from pyprobe.transport._bridge_costs import KLEstimate
from pyprobe.transport._bridge_input import (
    as_later_time,
    as_time,
    as_time_pair,
    as_times,
    digits,
    say_at_start,
)
from pyprobe.transport._bridge_torch_components import Components, Time
from pyprobe.transport._bridge_torch_law import BridgeLaw, log_transition
from pyprobe.transport._bridge_torch_native import log_phi, log_prob
from pyprobe.transport._torch import _check_precision, views

if TYPE_CHECKING:
    from pyprobe.transport.bridge import LightSchrodingerBridge
    from pyprobe.typing import Rng

__all__ = ["Forms", "TorchBridge", "call", "forms_of"]


class Forms:
    """The closed forms of a bridge on tensors; see the methods of `LightSchrodingerBridge`.

    Rows may have any batch shape (..., d), that of a single point included, and times are numbers,
    or tensors that broadcast with it. Shapes and times are checked, those of tensors where they can
    be read; the entries of rows are not. Results have the dtype of the rows, and are computed in
    float64.
    """

    epsilon: float
    horizon: float

    def _current(self) -> Components:
        """Return the components as they are now, in a graph with what they are made of."""
        raise NotImplementedError

    @property
    def n_components(self) -> int:
        """k, the number of components."""
        return self._sizes[0]

    @property
    def dim(self) -> int:
        """d, the dimension of the space."""
        return self._sizes[1]

    @property
    def _sizes(self) -> tuple[int, int]:
        raise NotImplementedError

    # --- laws ---

    def conditional(self, x0: Tensor) -> BridgeLaw:
        """Return the laws of the end, given the start."""
        return BridgeLaw(self._current(), self._rows("x0", x0), 0.0, 1.0)

    def conditional_at(self, x0: Tensor, t: float | Tensor) -> BridgeLaw:
        """Return the laws of the place at time `t`, in (0, horizon], given the start."""
        rows = self._rows("x0", x0)
        end = self._time(t, rows, later=True)
        return BridgeLaw(self._current(), rows, 0.0, end)

    def transition(self, x: Tensor, s: float, t: float) -> BridgeLaw:
        """Return the laws of the place at time `t`, given that at an earlier time `s`."""
        times = as_time_pair(s, t, self.horizon)
        return BridgeLaw(self._current(), self._rows("x", x), *times)

    def mean(self, x0: Tensor) -> Tensor:
        """Return the mean of the end given the start, shape (..., d)."""
        return self.conditional(x0).mean

    def covariance(self, x0: Tensor) -> Tensor:
        """Return the covariance of the end given the start, shape (..., d, d)."""
        return self.conditional(x0).covariance_matrix

    def log_prob(self, x1: Tensor, *, given: Tensor) -> Tensor:
        """Return the log-density of the end `x1`, given the start; the rows broadcast."""
        ends, starts = self._rows("x1", x1), self._rows("given", given)
        found = log_transition(self._current(), ends, 1.0, starts, 0.0)
        return found.to(torch.promote_types(_dtype(ends), _dtype(starts)))

    # --- potentials and drift ---

    def drift(self, x: Tensor, t: float | Tensor) -> Tensor:
        """Return the drift, shape (..., d); finite up to the end, ``t = horizon``."""
        c, rows = self._current(), self._rows("x", x)
        now = self._time(t, rows)
        y = c.place(rows, now)
        drift = c.velocity + c.mean_step(c.shares(y, now), y, now)
        return (drift / self.horizon).to(_dtype(rows))

    def log_phi(self, x: Tensor, t: float | Tensor) -> Tensor:
        """Return the logarithm of the potential, whose gradient times epsilon is the drift."""
        c, rows = self._current(), self._rows("x", x)
        now = self._time(t, rows)
        # What the moving frame has taken from every component.
        common = c.place(rows, 0.0) @ c.velocity - now * (c.velocity @ c.velocity) / 2
        found = c.log_sums(c.place(rows, now), now) + common / c.epsilon - c.log_constant
        return found.to(_dtype(rows))

    def log_potential(self, x: Tensor) -> Tensor:
        """Return the logarithm of the adjusted potential, the mixture v."""
        rows = self._rows("x", x)
        return _log_target(self._current(), rows).to(_dtype(rows))

    # --- costs ---

    def score(self, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the mean log-density of the ends given the starts, over all pairs of rows."""
        c, starts, ends = self._current(), self._some("x0", x0), self._some("x1", x1)
        u, y = (c.place(*pair).reshape(-1, self.dim) for pair in ((starts, 0.0), (ends, 1.0)))
        inner = (u.mean(0) @ y.mean(0)) / c.epsilon
        found = _log_target(c, ends).mean() - _log_normalizer(c, starts).mean() + inner
        return found.to(torch.promote_types(_dtype(starts), _dtype(ends)))

    def transport_cost(self, x0: Tensor) -> Tensor:
        """Return the expected cost, half the squared distance to the end, shape (...)."""
        c, rows = self._current(), self._rows("x0", x0)
        y = c.place(rows, 0.0)
        squares = (c.turn_back(c.steps(y, 0.0)) + c.velocity).square().sum(-1)
        traces = c.epsilon * c.eigenvalues.sum(-1)
        return ((c.shares(y, 0.0) * (squares + traces)).sum(-1) / 2).to(_dtype(rows))

    def backward_weights(self, x1: Tensor, x0: Tensor) -> Tensor:
        """Return the probabilities (m, n) that an end came from each start of a sample."""
        c, ends, starts = self._current(), self._rows("x1", x1), self._some("x0", x0)
        inner = c.place(ends, 1.0) @ c.place(starts, 0.0).mT / c.epsilon
        found = (inner - _log_normalizer(c, starts)).softmax(-1)
        return found.to(torch.promote_types(_dtype(starts), _dtype(ends)))

    # --- draws ---

    def sample(self, x0: Tensor, *, n: int | None = None, rng: Rng = None) -> Tensor:
        """Draw ends, exactly and without gradients: (..., d), or (n, ..., d).

        `rng` None stands for torch's default generator.
        """
        return _draw(self.conditional(x0), n, _generator(rng, x0.device))

    def sample_transition(
        self, x: Tensor, s: float, t: float, *, n: int | None = None, rng: Rng = None
    ) -> Tensor:
        """Draw places at time `t`, exactly, given those at an earlier time `s`."""
        return _draw(self.transition(x, s, t), n, _generator(rng, x.device))

    @torch.no_grad()
    def sample_path(
        self, x0: Tensor, times: Any, *, n: int | None = None, rng: Rng = None
    ) -> Tensor:
        """Draw paths at increasing times (l,), exactly: (..., l, d), or (n, ..., l, d)."""
        rows = self._rows("x0", x0)
        if isinstance(times, Tensor):
            times = times.numpy(force=True)
        steps = as_times("times", times, self.horizon).tolist()
        generator = _generator(rng, rows.device)
        starts = rows.double()
        ends = _draw(self.conditional(starts), n, generator)
        here, now, path = starts.expand(ends.shape), 0.0, []
        for t in steps:
            if t == 1:
                here = ends
            elif t > now:
                part = (t - now) / (1 - now)
                variance = self.epsilon * self.horizon * part * (1 - t)
                noise = torch.empty_like(here).normal_(generator=generator)
                here = here + part * (ends - here) + variance**0.5 * noise
            path.append(here)
            now = t
        return torch.stack(path, -2).to(_dtype(rows))

    # --- arguments ---

    def _rows(self, name: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"'{name}' must be a torch tensor; got {type(value).__name__}. Convert with "
                "torch.as_tensor."
            )
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"'{name}' must hold real numbers; got {value.dtype}.")
        if value.ndim == 0 or value.shape[-1] != self.dim:
            raise ShapeError(
                f"'{name}' must have shape (..., {self.dim}), as the bridge's shifts have; got "
                f"{tuple(value.shape)}."
            )
        return value

    def _some(self, name: str, value: Any) -> Tensor:
        rows = self._rows(name, value)
        if rows.numel() == 0:  # their mean would be 0 / 0
            raise ShapeError(f"'{name}' must have at least one row; got shape {tuple(rows.shape)}.")
        return rows

    def _time(self, t: Any, rows: Tensor, *, later: bool = False) -> Time:
        """Return times as fractions of the horizon; with `later` they must be after 0."""
        if not isinstance(t, Tensor):
            return (as_later_time if later else as_time)("t", t, self.horizon)
        try:
            torch.broadcast_shapes(t.shape, rows.shape[:-1])
        except RuntimeError:
            raise ShapeError(
                f"'t' must be a number or broadcast with the rows, {tuple(rows.shape[:-1])}; got "
                f"shape {tuple(t.shape)}."
            ) from None
        if _holds_numbers(t):
            self._check_times(t.detach(), later=later)
        return t.double() / self.horizon

    def _check_times(self, t: Tensor, *, later: bool) -> None:
        good = ((t > 0) if later else (t >= 0)) & (t <= self.horizon)  # false for NaN
        if good.all():
            return
        first = t[~good].flatten()[0].item()
        if later and first == 0:
            raise DomainError(say_at_start("t", self.horizon))
        raise DomainError(
            f"'t' must be in {'(' if later else '['}0, {digits(self.horizon)}], the horizon; got "
            f"{digits(first)}."
        )


class TorchBridge(Forms, nn.Module):
    r"""A Schrödinger bridge as a module of torch, to train, and to differentiate through.

    What ``LightSchrodingerBridge.to_torch()`` returns. Its methods are those of the value, with the
    same names and results, on tensors of its device, but for `kl_to_reference` and `sample_sde`:
    these are methods of what `to_bridge` returns. They are differentiable in rows, times and
    parameters, to any order, and ``torch.func`` transforms them. Draws carry no gradient, but those
    of ``conditional(x0).rsample()`` do. Called as a function, it returns `loss`.

    Times that are out of range are refused, those in tensors too unless the call is traced,
    compiled or transformed. Rows are not looked at: where one is NaN or infinite, so are results.

    Attributes
    ----------
    log_weights : Parameter, shape (k,)
        Logarithms of the components' probabilities at the origin, up to a constant.
    offsets : Parameter, shape (k, d)
        Where the components take the origin, from `center`.
    log_scales : Parameter, shape (k,) or (k, d)
        Logarithms of the scales, or of their eigenvalues where they are full.
    turns : Parameter, shape (k, d (d - 1) / 2), or None
        Of full scales: how far their axes have turned from `axes`, by Cayley's transform of the
        skew matrices with these entries below the diagonal. 0 at first.
    axes : buffer, shape (k, d, d), or None
        Of full scales: the eigenvectors at first.
    origin, center : buffers, shape (d,)
        The origin of the bridge, and the mean of its shifts at first. They stay in float64.
    epsilon, horizon : float
        As those of the value; kept in the ``state_dict`` too.

    Notes
    -----
    Parameters begin in float64; ``.float()`` and ``.to(device)`` do as ever. All is computed in
    float64, and comes out in the dtype of the rows: in float32 a result is off by the rounding of
    the rows and of the parameters, not of what is done with them. Rows and shifts are taken from
    `origin` and `center` first, so it does not matter how far from 0 the data lie. No product runs
    in TF32 or under autocast. Cost O(k d) a row in products of matrices, O(k d^2) with full scales;
    with a time for each row, or full scales, in memory for each row, component and coordinate.

    Full scales are :math:`Q e^{\operatorname{diag}(s)} Q^T`. In their eigenbases all times cost the
    same, and small scales beside large ones keep their digits; a Cholesky factor or a matrix
    logarithm would need a decomposition for every time. No derivative is singular where
    eigenvalues are equal, but turning axes of equal scales has no effect, so there its gradient is
    0: axes turn once the scales along them differ.

    Log-densities are off by about :math:`10^{-16} |x - o|^2 / (\varepsilon T S)`, with the smallest
    scale: the products of matrices lose what the differences of the value's own methods keep.

    Examples
    --------
    >>> import torch
    >>> from pyprobe.transport import LightSchrodingerBridge
    >>> module = LightSchrodingerBridge.from_parameters(
    ...     [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.2, 0.2], epsilon=0.5
    ... ).to_torch()
    >>> x0, x1 = torch.randn(2, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    >>> before = module.loss(x0, x1)
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     module.loss(x0, x1).backward()
    ...     optimizer.step()
    >>> bool(module.loss(x0, x1) < before - 1)
    True
    >>> module.to_bridge()
    LightSchrodingerBridge(n_components=2, dim=2, epsilon=0.5, scales='spherical')
    """

    def __init__(self, bridge: LightSchrodingerBridge) -> None:
        super().__init__()
        self.epsilon, self.horizon = bridge.epsilon, bridge.horizon
        center = bridge.shifts.mean(axis=0)
        scales, axes = _eigen(bridge.scales)
        self.log_weights = _parameter(bridge.log_weights)
        self.offsets = _parameter(bridge.shifts - center)
        self.log_scales = _parameter(np.log(scales))
        k, d = bridge.shifts.shape
        turns = None if axes is None else _parameter(np.zeros((k, d * (d - 1) // 2)))
        self.turns: nn.Parameter | None
        self.register_parameter("turns", turns)
        self.axes: Tensor | None
        self.register_buffer("axes", None if axes is None else torch.from_numpy(axes))
        self.origin: Tensor
        self.register_buffer("origin", torch.tensor(bridge.origin))
        self.center: Tensor
        self.register_buffer("center", torch.from_numpy(center))

    def extra_repr(self) -> str:
        """Return what the repr says between its brackets."""
        kind = "full" if self.axes is not None else "diag" if self.log_scales.ndim == 2 else None
        horizon = "" if self.horizon == 1 else f", horizon={self.horizon:.6g}"
        return (
            f"n_components={self.n_components}, dim={self.dim}, epsilon={self.epsilon:.6g}"
            f"{horizon}, scales={kind or 'spherical'!r}"
        )

    @property
    def weights(self) -> Tensor:
        """Probabilities of the components at the origin, shape (k,)."""
        return self.log_weights.softmax(-1)

    @property
    def shifts(self) -> Tensor:
        """Where each component takes the origin, shape (k, d), in float64."""
        return self.center + self.offsets.double()

    @property
    def scales(self) -> Tensor:
        """Positive numbers (k,), diagonals (k, d) or matrices (k, d, d)."""
        scales, bases = self.log_scales.exp(), self._bases()
        if bases is None:
            return scales
        return ((bases * scales.double().unsqueeze(-2)) @ bases.mT).to(scales.dtype)

    def loss(self, x0: Tensor, x1: Tensor) -> Tensor:
        r"""Return :math:`E \log c(x_0) - E \log v(x_1)`, the negative of `score`.

        Parameters
        ----------
        x0, x1 : Tensor, shapes (..., d)
            Starts and ends, which need not be paired: whole samples or batches of them.

        Returns
        -------
        Tensor, shape ()
            In nats; between two bridges the difference is that of their divergences from the true
            one.
        """
        return -self.score(x0, x1)

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        """Return `loss`: what wrappers for training in parallel call."""
        return self.loss(x0, x1)

    def rescale(self, epsilon: float) -> None:
        """Change epsilon, and the weights such that every component keeps its map and its cell.

        Shifts, scales and epsilon times `log_weights` stay as they are: a start for training at
        another strength of the noise.
        """
        epsilon = check_positive_float("epsilon", epsilon)
        with torch.no_grad():
            self.log_weights.mul_(self.epsilon / epsilon)
        self.epsilon = epsilon

    def to_bridge(self) -> LightSchrodingerBridge:
        """Return the bridge as a value of NumPy arrays, which stays as it is."""
        from pyprobe.transport.bridge import LightSchrodingerBridge

        scales = self.scales.double()
        if scales.ndim == 3:
            scales = (scales + scales.mT) / 2
        return LightSchrodingerBridge(
            log_weights=self.log_weights.numpy(force=True),
            shifts=self.shifts.numpy(force=True),
            scales=scales.numpy(force=True),
            epsilon=self.epsilon,
            horizon=self.horizon,
            origin=self.origin.numpy(force=True),
        )

    def _current(self) -> Components:
        """Return the components as they are now, in a graph with the parameters."""
        offsets = self.offsets.double()
        scales = self.log_scales.double().exp()
        return Components(
            self.log_weights.double(),
            offsets,
            scales if scales.ndim == 2 else scales.unsqueeze(-1).expand_as(offsets),
            self._bases(),
            self.epsilon * self.horizon,
            self.origin,
            self.center - self.origin,
        )

    @property
    def _sizes(self) -> tuple[int, int]:
        k, d = self.offsets.shape
        return k, d

    def _bases(self) -> Tensor | None:
        """Return the eigenvectors of full scales, (k, d, d)."""
        if self.axes is None or self.turns is None:
            return None
        k, d = self._sizes
        rows, columns = torch.tril_indices(d, d, -1, device=self.turns.device)
        empty = self.turns.new_zeros(d, d, k, dtype=torch.float64)
        lower = empty.index_put((rows, columns), self.turns.double().mT).movedim(-1, 0)
        skew = (lower - lower.mT) / 2
        eye = torch.eye(d, dtype=skew.dtype, device=skew.device)
        turned: Tensor = torch.linalg.solve(eye - skew, eye + skew)
        return self.axes.double() @ turned

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchBridge:
        # Places move with the module, but keep the digits that float32 would take.
        exact = {name: getattr(self, name) for name in ("origin", "center", "axes")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in exact.items():
            after = getattr(self, name)
            if after is not None and after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in _NUMBERS:
            destination[prefix + name] = torch.tensor(getattr(self, name), dtype=torch.float64)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # Before anything is loaded: parameters mean something else under another noise.
        kept = dict(state_dict)
        for name in _NUMBERS:
            saved, own = kept.pop(prefix + name, None), getattr(self, name)
            if saved is None:
                missing_keys.append(prefix + name)
            elif not math.isclose(float(saved), own, rel_tol=1e-6):  # a state may be in float32
                raise DomainError(
                    f"the state holds a bridge of {name} {float(saved):.6g}, the module has "
                    f"{own:.6g}. Load it into a module of that {name}"
                    + (", then call rescale(epsilon)." if name == "epsilon" else ".")
                )
        super()._load_from_state_dict(
            kept, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


_NUMBERS = ("epsilon", "horizon")


class _Fixed(Forms):
    """The closed forms of a value."""

    def __init__(self, bridge: LightSchrodingerBridge, device: torch.device) -> None:
        self.epsilon, self.horizon = bridge.epsilon, bridge.horizon
        center = bridge.shifts.mean(axis=0)
        scales, axes = _eigen(bridge.scales)
        arrays = bridge.log_weights, bridge.shifts - center, scales, bridge.origin, center
        weights, offsets, scales, origin, center = (torch.tensor(a, device=device) for a in arrays)
        self._components = Components(
            weights,
            offsets,
            scales if scales.ndim == 2 else scales.unsqueeze(-1).expand_as(offsets),
            None if axes is None else torch.tensor(axes, device=device),
            self.epsilon * self.horizon,
            origin,
            center - origin,
        )

    def _current(self) -> Components:
        return self._components

    @property
    def _sizes(self) -> tuple[int, int]:
        k, d = self._components.shifts.shape
        return k, d


_KEPT: WeakKeyDictionary[LightSchrodingerBridge, dict[torch.device, _Fixed]] = WeakKeyDictionary()


def forms_of(bridge: LightSchrodingerBridge, device: torch.device) -> Forms:
    """Return the closed forms of a value on a device, made once."""
    kept = _KEPT.setdefault(bridge, {})
    found = kept.get(device)
    if found is None:
        found = _Fixed(bridge, device)
        # What is made within a transform or a trace is of no use outside.
        if is_plain(()) and not torch.is_inference_mode_enabled():
            kept[device] = found
    return found


def call(method: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Run a method of the value on tensors of one device; its arguments by their names."""
    given = dict(arguments)
    bridge: LightSchrodingerBridge = given.pop("self")
    name = method.__name__
    tensors = {key: value for key, value in given.items() if isinstance(value, Tensor)}
    _check_precision(**tensors)
    values = tuple(tensors.values())
    has_forms = hasattr(Forms, name)
    if not has_forms or (values[0].is_cpu and is_plain(values)):
        if not has_forms:
            views(f"LightSchrodingerBridge.{name}", **tensors)
        dtype = values[0].dtype
        for value in values[1:]:
            dtype = torch.promote_types(dtype, value.dtype)
        return _as_tensors(method(bridge, **_arrays(given)), dtype)
    if _can_be_read(name, values) and not _is_sound(bridge.dim, bridge.horizon, given):
        method(bridge, **_arrays(given))  # says what is wrong
    if name.startswith("sample"):
        given["rng"] = _rng.key(given.get("rng"))
    forms = forms_of(bridge, values[0].device)
    if values[0].is_cpu and is_plain(()):  # nothing but reverse mode looks on
        components = bridge._components  # noqa: SLF001  # the value's own engine
        if name == "log_prob":
            return log_prob(components, forms, **given)
        if name == "log_phi" and not isinstance(given["t"], Tensor | np.ndarray):
            return log_phi(components, forms, given["x"], as_time("t", given["t"], bridge.horizon))
    return getattr(forms, name)(**given)


def _arrays(given: dict[str, Any]) -> dict[str, Any]:
    return {k: v.numpy(force=True) if isinstance(v, Tensor) else v for k, v in given.items()}


def _as_tensors(found: Any, dtype: torch.dtype) -> Any:
    """Return a result of the native path as tensors."""
    if isinstance(found, np.ndarray):
        return torch.from_numpy(found)
    if isinstance(found, KLEstimate):
        parts: Any = map(torch.from_numpy, (found.value, found.standard_error))
        return replace(found, **dict(zip(("value", "standard_error"), parts, strict=True)))
    return torch.tensor(found, dtype=dtype if dtype.is_floating_point else torch.float64)


def _holds_numbers(t: Tensor) -> bool:
    """Whether the entries of `t` may be looked at, now and on its device."""
    if t.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return t.device.type != "meta" and _can_be_read("t", (t,))


def _can_be_read(name: str, tensors: tuple[Tensor, ...]) -> bool:
    """Whether tensors hold numbers now: those that are traced or transformed do not."""
    try:
        check_eager(name, tensors)
    except RuntimeError:
        return False
    return True


def _is_sound(dim: int, horizon: float, given: dict[str, Any]) -> bool:
    """Whether the native path would take these, as far as can be said without a copy."""
    for name in ("x0", "x", "given", "x1"):
        rows = given.get(name)
        if rows is None:
            continue
        is_matrix = rows.ndim == 2 or (rows.ndim > 2 and name == "x1" and "given" in given)
        if not (is_matrix and len(rows) and rows.shape[-1] == dim and rows.isfinite().all()):
            return False
    if "given" in given and given["x1"].shape[-2] != len(given["given"]) != 1:
        return False
    t = given.get("t")
    if not isinstance(t, Tensor):
        return True
    return t.shape in ((), given["x"].shape[:1]) and bool(((t >= 0) & (t <= horizon)).all())


def _draw(law: BridgeLaw, n: int | None, generator: torch.Generator | None) -> Tensor:
    shape = () if n is None else (check_positive_int("n", n),)
    return law.sample(shape, generator=generator)


def _generator(rng: Any, device: torch.device) -> torch.Generator | None:
    """Return a generator on `device`: the one that came, or one under its key."""
    if rng is None:
        return None
    if isinstance(rng, torch.Generator) and rng.device == device:
        return rng
    return torch.Generator(device).manual_seed(_rng.key(rng) % 2**63)


def _log_target(c: Components, x: Tensor) -> Tensor:
    """Return log v in the frame."""
    y = c.place(x, 1.0)
    return c.log_sums(y, 1.0) - y.square().sum(-1) / (2 * c.epsilon) - c.log_constant


def _log_normalizer(c: Components, x0: Tensor) -> Tensor:
    """Return log c in the frame."""
    u = c.place(x0, 0.0)
    return c.log_sums(u, 0.0) + u.square().sum(-1) / (2 * c.epsilon)


def _dtype(rows: Tensor) -> torch.dtype:
    return rows.dtype if rows.is_floating_point() else torch.float64


def _eigen(scales: Any) -> tuple[Any, Any]:
    """Return eigenvalues and eigenvectors of matrices; scales along the axes as they are."""
    return (scales, None) if scales.ndim < 3 else np.linalg.eigh(scales)


def _parameter(array: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(np.ascontiguousarray(array)))
