"""Run every benchmark in turn: ``python benches/run.py [--write]`` or ``make bench``.

`--write`, passed on to each, writes docs/accuracy.md and docs/benchmarks.md. Each runs in a process
of its own, which sees no other's memory or threads.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    scripts = [*sorted(HERE.glob("accuracy_*.py")), *sorted(HERE.glob("bench_*.py"))]
    for script in scripts:
        print(f"== {script.name}", flush=True)
        subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
