"""How `make docs` builds the pages; `docs/extension.py` has what comes from tables of the code."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "PARO"
author = "The PARO contributors"
copyright = author
version = release = metadata.version("paro-accelerator")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "extension"]
exclude_patterns = ["images"]
suppress_warnings: list[str] = []

# Markdown as GitHub shows it: links to headings, diagrams in fences.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# Tutorials are shown as they were run (`make tutorials`); a test runs them anew.
nb_execution_mode = "off"

autodoc_member_order = "bysource"
add_module_names = False
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
default_role = "py:obj"
highlight_language = "none"

html_theme = "furo"
html_title = f"PARO {version}"
html_static_path = ["style"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
