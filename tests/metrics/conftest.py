"""The helper that serves stands in the folder of the HTTP tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "http"))
