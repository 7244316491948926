"""`lapse` with what `BROKEN_ON_PURPOSE` names of `breaks` done to it, in its workers, too."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

import breaks

# Workers import this module, under another name.
getattr(breaks, os.environ["BROKEN_ON_PURPOSE"])()

if __name__ == "__main__":
    from lapse.cli.main import main

    main()
