"""How `make docs` builds the pages of the project, from the repository's root, into build/."""

import re

project = "Overpaint"
html_title = "Overpaint"
extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/**", "bench/README.md", "worker/overpaint_worker/models/*/README.md"]
exclude_patterns = [".*", "build", "tests", "training", "overpaint-*"]
nitpicky = True
myst_heading_anchors = 4

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2f5a96", "color-brand-content": "#2f5a96"},
    "dark_css_variables": {"color-brand-primary": "#9dbcec", "color-brand-content": "#9dbcec"},
}
pygments_style = "friendly"
pygments_dark_style = "monokai"

_SECTION = re.compile(r"^## (.+)\n((?:\n?(?!## ).*\n?)*)", re.MULTILINE)
_PAGE = re.compile(r"^- \[[^]]+\]\(([\w./-]+)\.md\)", re.MULTILINE)


def _with_contents(_, name, source):
    """Give docs/index.md a table of contents for the sidebar: its own sections and the pages that their lists name.

    Written into the page it would stand there as a block of code wherever else than here the page is read.
    """
    if name == root_doc:
        for caption, body in _SECTION.findall(source[0]):
            pages = "\n".join(page.replace("../", "/") for page in _PAGE.findall(body))
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def setup(app):
    app.connect("source-read", _with_contents)
