"""Threads, forks, signals and imports: how kernels live in a process."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import pyprobe
from pyprobe import special
from pyprobe.errors import DomainError

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run(code: str, **environment: str) -> str:
    """Run a program of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def threads():
    """Set the number of threads for one test."""
    yield pyprobe.set_num_threads
    pyprobe.set_num_threads(None)


def grid(n=300):
    """A grid that is long work, and visits every formula."""
    return np.geomspace(1e-2, 1e4, n)[:, None], np.geomspace(1e-4, 1e5, n + 7)


# Threads.


def test_the_number_of_threads_can_be_set_and_reset(threads):
    threads(3)
    assert pyprobe.get_num_threads() == 3
    threads(None)
    assert 1 <= pyprobe.get_num_threads() <= (os.cpu_count() or 1)


def test_a_wrong_number_of_threads_is_refused():
    for n, message in ((0, "'n' must be at least 1; got 0"), (-2, "got -2")):
        with pytest.raises(DomainError, match=message):
            pyprobe.set_num_threads(n)
    with pytest.raises(TypeError, match="'n' must be an integer"):
        pyprobe.set_num_threads(1.5)


def test_the_environment_sets_the_number_of_threads():
    code = "import pyprobe; print(pyprobe.get_num_threads())"
    assert run(code, PYPROBE_NUM_THREADS=" 3 ") == "3\n"
    assert int(run(code, PYPROBE_NUM_THREADS="")) >= 1


@pytest.mark.parametrize("text", ["0", "two", "-1", "1.5"])
def test_a_wrong_environment_is_refused_at_import(text):
    code = """
        try:
            import pyprobe
        except ValueError as error:
            print(error)
    """
    message = run(code, PYPROBE_NUM_THREADS=text)
    assert message.startswith("the environment variable PYPROBE_NUM_THREADS must be a positive")
    assert repr(text) in message


@pytest.mark.parametrize("name", ["log_iv", "log_kv", "bessel_ratio", "log_hyp0f1", "log_matern"])
def test_bits_are_the_same_for_any_number_of_threads(name, threads):
    function = getattr(special, name)
    found = []
    for n in (1, 2, 4):
        threads(n)
        found.append([function(*grid(), derivative=order) for order in ((0, 0), (0, 1), (1, 1))])
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_an_element_has_its_value_in_any_array():
    v, x = grid(120)
    whole = special.log_kv(v, x)
    np.testing.assert_array_equal(whole[17:, ::3], special.log_kv(v[17:], x[::3]))
    assert whole[50, 60] == special.log_kv(float(v[50, 0]), float(x[60]))


def test_threads_of_python_share_the_pool():
    v, x = grid(200)
    expected = special.log_iv(v, x)
    found = []
    workers = [
        threading.Thread(target=lambda: found.append(special.log_iv(v, x))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    for got in found:
        np.testing.assert_array_equal(got, expected)


def test_long_work_lets_other_threads_of_python_run():
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.002)

    clock = threading.Thread(target=tick)
    clock.start()
    start = time.perf_counter()
    special.log_kv(*grid(2000))
    end = time.perf_counter()
    stop.set()
    clock.join()
    within = [t for t in ticks if start < t < end]
    assert end - start > 0.02
    assert len(within) >= (end - start) / 0.02 / 2


# Forks.


@needs_fork
def test_a_child_computes_while_a_thread_of_its_parent_is_inside_rust():
    output = run(
        """
        import os, threading, warnings
        import numpy as np
        from pyprobe import special

        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of fork with threads
        v, x = np.geomspace(1e-2, 1e4, 1500)[:, None], np.geomspace(1e-4, 1e5, 1500)
        small = special.log_kv(v[::10], x[::10])
        busy = threading.Thread(target=lambda: special.log_kv(v, x))
        busy.start()
        for _ in range(4):
            child = os.fork()
            if child == 0:
                same = np.array_equal(special.log_kv(v[::10], x[::10]), small)
                os._exit(0 if same else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        busy.join()
        print(np.array_equal(special.log_kv(v[::10], x[::10]), small))
        """
    )
    assert output.split() == ["0"] * 4 + ["True"]


@needs_fork
def test_a_grandchild_and_a_changed_number_of_threads_compute_too():
    output = run(
        """
        import os, warnings
        import numpy as np
        import pyprobe
        from pyprobe import special

        warnings.simplefilter("ignore", DeprecationWarning)
        v, x = np.geomspace(1e-2, 1e4, 150)[:, None], np.geomspace(1e-4, 1e5, 150)
        expected = special.log_iv(v, x)
        def generation(depth):
            if depth == 3:
                return
            child = os.fork()
            if child == 0:
                pyprobe.set_num_threads(depth + 2)
                assert np.array_equal(special.log_iv(v, x), expected)
                generation(depth + 1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        generation(0)
        print(np.array_equal(special.log_iv(v, x), expected))
        """
    )
    assert output == "True\n"


@needs_fork
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_of_a_data_loader_compute():
    torch = pytest.importorskip("torch")
    v, x = (torch.from_numpy(a) for a in grid(150))
    expected = special.log_iv(v, x)  # the pool of the parent is running

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(v)

        def __getitem__(self, i):
            return special.log_iv(v, x)[i]

    loader = torch.utils.data.DataLoader(
        Rows(), batch_size=50, num_workers=2, multiprocessing_context="fork"
    )
    assert torch.equal(torch.cat(list(loader)), expected)


# Signals.

INTERRUPTED = """
    import os, signal, sys, threading, time
    import numpy as np
    from pyprobe import special

    v, x = np.full((20_000, 1), 2.5), np.full(25_000, 3.5)  # five hundred million elements
    def interrupt():
        time.sleep(0.5)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    sent = []
    threading.Thread(target=interrupt).start()
    try:
        special.log_kv({arguments})
    except {exception}:
        print(time.perf_counter() - sent[0])
    {after}
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way")
def test_control_c_stops_a_kernel_within_200_ms():
    after = "print(special.log_kv(v[:500], x[:500]).shape)"
    code = INTERRUPTED.format(arguments="v, x", exception="KeyboardInterrupt", after=after)
    seconds, *shape = run(code).split(maxsplit=1)
    assert float(seconds) < 0.2
    assert shape == ["(500, 500)\n"]  # and the next call works


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way")
@pytest.mark.parametrize(
    "call",
    [
        "_core.sketch_srht_rows(2**25, 2**26, 1)",
        "_core.sketch_sparse_columns(('sparse_sign', 40, 2**25, 8, 1, None), 0, 2**25)",
    ],
)
def test_control_c_stops_what_makes_the_columns_of_a_sketch(call):
    # The first call of the process: no array has been made before.
    code = f"""
        import os, signal, threading, time
        from pyprobe import _core

        def interrupt():
            time.sleep(0.3)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        sent = []
        threading.Thread(target=interrupt).start()
        try:
            {call}
        except KeyboardInterrupt:
            print(time.perf_counter() - sent[0])
    """
    assert float(run(code)) < 0.2


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way")
def test_what_a_signal_handler_raises_comes_out_of_the_kernel():
    handler = """
    class Stop(Exception):
        pass
    def stop(*_):
        raise Stop
    import signal
    signal.signal(signal.SIGINT, stop)
    """
    code = textwrap.dedent(handler) + textwrap.dedent(
        INTERRUPTED.format(arguments="v, x", exception="Stop", after="")
    )
    assert float(run(code)) < 0.2


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way")
def test_a_signal_handler_that_returns_lets_the_kernel_finish():
    seen = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: seen.append(time.perf_counter()))
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        v, x = grid(2000)
        while not seen:
            result = special.log_kv(v, x)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert result.shape == (2000, 2007)


# Imports.


def test_importing_the_special_functions_loads_no_torch():
    code = "import sys, pyprobe.special; print('torch' in sys.modules)"
    assert run(code) == "False\n"


def test_calling_with_arrays_loads_no_torch():
    code = """
        import sys
        import numpy as np
        from pyprobe import special
        special.log_iv(np.ones(3), [1, 2, 3])
        special.bessel_ratio_inverse(1.0, 0.5)
        print('torch' in sys.modules)
    """
    assert run(code) == "False\n"


def test_the_torch_twin_needs_its_module_only_when_a_tensor_comes():
    pytest.importorskip("torch")
    code = """
        import sys, warnings
        warnings.simplefilter("ignore")
        import torch
        from pyprobe import special
        special.log_iv(1.0, 2.0)
        print('pyprobe.special._ops' in sys.modules)
        special.log_iv(1.0, torch.ones(1))
        print('pyprobe.special._ops' in sys.modules)
    """
    assert run(code).split() == ["False", "True"]
