"""`python -m nod`, for a checkout where the command is not installed."""

import sys

from nod.cli import main

if __name__ == "__main__":
    sys.exit(main())
