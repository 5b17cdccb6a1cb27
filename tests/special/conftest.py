"""What the tests of the special functions share."""

from collections.abc import Iterator
from functools import partial

import pytest


@pytest.fixture
def compiled() -> Iterator[partial]:
    """Give ``torch.compile`` that refuses graph breaks, and undo what it does to torch."""
    torch = pytest.importorskip("torch")
    distribution = torch.distributions.Distribution
    validate = distribution._validate_args  # the compiler switches validation off, for good
    torch._dynamo.reset()
    yield partial(torch.compile, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()
    distribution.set_default_validate_args(validate)
