"""Special functions, for NumPy arrays and torch tensors.

Logarithms of modified Bessel functions, their ratios, and the two combinations that models need:
`log_hyp0f1`, the normalizer of the von Mises-Fisher distribution, and `log_matern`, the Matérn
correlation. All are differentiable in both arguments.
"""

from pyprobe.special.bessel import (
    bessel_ratio,
    bessel_ratio_complement,
    bessel_ratio_inverse,
    log_hyp0f1,
    log_iv,
    log_ive,
    log_kv,
    log_kve,
    log_matern,
)

__all__ = [
    "bessel_ratio",
    "bessel_ratio_complement",
    "bessel_ratio_inverse",
    "log_hyp0f1",
    "log_iv",
    "log_ive",
    "log_kv",
    "log_kve",
    "log_matern",
]
