"""``python -m erfattr``: the command line."""

import sys

if __name__ == "__main__":
    from erfattr.cli import main

    sys.exit(main())
