"""`python -m ggpy VERB …`."""

from __future__ import annotations

import os
import sys

# Python puts the current directory first, which may be a model's: nothing there is to be imported in place of a module of this name. Until
# then, only modules are imported that Python has loaded already.
_here = os.getcwd()  # noqa: PTH109
if sys.path and sys.path[0] == _here and not __file__.startswith(os.path.join(_here, "ggpy", "")):  # noqa: PTH118
    del sys.path[0]

from ggpy.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
