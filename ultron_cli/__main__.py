"""`python -m ultron_cli` (and `torchrun -m ultron_cli`) is the same as `ultron`."""

import sys

from ultron_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
