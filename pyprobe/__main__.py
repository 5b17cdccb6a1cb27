"""``python -m pyprobe``: the tour of `pyprobe.demo`."""

import sys

from pyprobe.demo import main

if __name__ == "__main__":
    sys.exit(main())
