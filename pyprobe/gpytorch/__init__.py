"""Door to GPyTorch: kernels that its models use like its own.

`MaternKernel`     the Matern kernel of any smoothness, which can be learned
`from_gpytorch`    a GPyTorch kernel with its state, as ours
`as_kernel`        ours, as GPyTorch's own kernel
"""

from pyprobe.errors import MissingDependencyError

try:
    import gpytorch as _gpytorch  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        "pyprobe.gpytorch needs GPyTorch: pip install 'pyprobe-rs[gpytorch]'"
    ) from error

from pyprobe.gpytorch.kernels import MaternKernel, as_kernel, from_gpytorch

__all__ = ["MaternKernel", "as_kernel", "from_gpytorch"]
