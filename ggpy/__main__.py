"""`python -m ggpy VERB …`."""

from __future__ import annotations

import sys

from ggpy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
