"""The command line: ``python -m aiosock``, which is ``aiosock`` where that is installed."""

import sys

from ._cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
