"""The documentation site: the pages of the tree as they are, and a reference made of the code.

Sphinx reads the whole tree, so that every link of a page leads where it leads in a checkout, and a
link to a file that is no page lets its reader download it. Nothing is asked of the network.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lapse

sys.path.insert(0, str(Path(__file__).parent))

from reference import write_reference

project = "Lapse"
version = release = lapse.__version__

root_doc = "docs/site/index"
include_patterns = [
    *("*.md", "docs/*.md", "docs/**/*.md", "examples/*.md", "bench/*.md", "bench/**/*.md"),
]
# Sphinx need not walk them.
exclude_patterns = [".*", "bench/out", "build", "clients", "ops", "src", "tests"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
myst_heading_anchors = 4
default_role = "code"  # docstrings have `names` in backticks, as Markdown does
suppress_warnings = ["misc.highlighting_failure"]  # `…` stands in JSON where more would stand

html_theme = "furo"
html_title = f"Lapse {lapse.__version__}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_extra_path = ["extra"]
html_static_path = ["static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "native"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def setup(app) -> None:  # noqa: ANN001 - Sphinx is no dependency of the checks
    """Write the generated pages before Sphinx looks for pages."""
    app.connect("config-inited", lambda _app, _config: write_reference())
