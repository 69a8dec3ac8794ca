"""How Sphinx builds these pages: `sphinx-build -W -n --keep-going docs docs/_build`."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import mrcnn_tf  # noqa: E402

project = "mrcnn_tf"
author = copyright = "The mrcnn_tf authors"
version = release = mrcnn_tf.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "settings_pages",
    "problem_pages",
    "preset_pages",
]
exclude_patterns = ["_build", "_ext"]
suppress_warnings = ["misc.highlighting_failure"]  # commands with "..." in them are no Python, json or shell

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the text says what they are, with shapes
napoleon_use_rtype = False  # what comes before a colon under "Returns:" is more often a shape than a type
# What no page here describes: Python's and TensorFlow's own.
nitpick_ignore = [("py:class", "pathlib.Path"), ("py:exc", "tf.errors.InvalidArgumentError")]

html_theme = "furo"
html_title = f"mrcnn_tf {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
