"""The site of the course, for Sphinx; `python -m course_utils.course` puts its sources together and builds it."""

from sphinx.application import Sphinx

from course_utils.core import noise

noise.quiet()  # the API pages import the package

project = "LoRA, PEFT, QLoRA and Guanaco-style SFT, measured"
author = "the maintainers of the course"
copyright = "text and data CC BY 4.0, code Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generated"]  # included by other pages
html_theme = "sphinx_book_theme"
html_title = "LoRA, PEFT, QLoRA, Guanaco-style SFT"
html_theme_options = {
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "primary_sidebar_end": [],
    "navbar_persistent": [],  # the sidebar has the field for searches
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_static_path = ["static"]
html_css_files = ["narrow.css"]
html_last_updated_fmt = ""
html_use_index = html_domain_indices = False  # the search finds more
html_show_search_summary = False  # a page that was opened from a disk may not read other pages

nb_execution_mode = "off"  # what is shown is what was executed and compared
nb_number_source_lines = False
myst_heading_anchors = 3

smartquotes = False  # it makes a dash of the two that begin an option
default_role = "literal"  # docstrings write `names` as Markdown does
napoleon_numpy_docstring = False
add_module_names = False  # the page says which room it is
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True


def shown(*given: object) -> tuple[str | None, str | None]:
    """A default that is made anew for each object, as `...`: `<factory>` is no Python, and is not understood."""
    signature, returned = given[-2:]
    return signature and signature.replace("<factory>", "..."), returned


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", shown)
