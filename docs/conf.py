"""How the documentation is built: offline, from docs/ and the docstrings; a warning is an error.

.venv/bin/pip install -q -e '.[docs]'
.venv/bin/sphinx-build -W -b html docs docs/_build
"""

from importlib.metadata import version as version_of

project = "aiosock"
version = release = version_of("awaitable-sockets")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "py:obj"  # a name in a docstring is a link, where there is something to link to

html_theme = "furo"
html_title = "aiosock"
html_show_copyright = False

myst_heading_anchors = 3

autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
