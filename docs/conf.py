"""The documentation site: ``make docs`` builds it in build/docs, without a network."""

import builtins
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fastlstm import __version__

project = "fastlstm"
author = "The fastlstm developers"
copyright = "The fastlstm developers"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "fastlstm_site",
]
exclude_patterns = ["_build"]
default_role = "py:obj"  # single backticks in docstrings

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

# Docstrings name the types; hints beside them would say the same twice.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = True
autodoc_mock_imports = [
    name
    for name in ("torch", "onnx", "sklearn", "dask", "distributed", "mpi4py", "matplotlib")
    if importlib.util.find_spec(name) is None
]
add_module_names = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
python_use_unqualified_type_names = True

nitpicky = True
nitpick_ignore = [("py:exc", name) for name in dir(builtins)]  # intersphinx needs a network

html_theme = "furo"
html_title = "fastlstm"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_search_summary = False  # read from a disk, browsers may not fetch the pages for it
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
