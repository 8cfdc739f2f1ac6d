"""The site of the course, for Sphinx; `python -m course_utils.course` puts its sources together and builds it."""

project = "LoRA, PEFT, QLoRA and Guanaco-style SFT, measured"
author = "the maintainers of the course"
copyright = "text and data CC BY 4.0, code Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generated"]  # included by other pages
html_theme = "sphinx_book_theme"
html_title = "LoRA, PEFT, QLoRA, Guanaco-style SFT"
html_theme_options = {"show_toc_level": 2, "use_fullscreen_button": False, "primary_sidebar_end": []}
html_last_updated_fmt = ""

nb_execution_mode = "off"  # what is shown is what was executed and compared
nb_number_source_lines = False
myst_heading_anchors = 3

default_role = "literal"  # docstrings write `names` as Markdown does
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
