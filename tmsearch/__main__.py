"""`python -m tmsearch` is `tmsearch`."""

import sys

from tmsearch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
