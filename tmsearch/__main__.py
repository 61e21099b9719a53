"""`python -m tmsearch` is `tmsearch`."""

import sys

from tmsearch.cli import main

if __name__ == "__main__":
    sys.exit(main())
