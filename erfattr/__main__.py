"""``python -m erfattr``: the command line."""

import sys

from erfattr.cli import main

if __name__ == "__main__":
    sys.exit(main())
