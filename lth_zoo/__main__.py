"""``python -m lth_zoo`` is ``lth-zoo``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
