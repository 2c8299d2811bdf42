"""`python -m apps`, and the console command `unroll`."""

import sys

from apps.core.cli import main

if __name__ == "__main__":
    sys.exit(main())
