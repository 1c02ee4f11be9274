"""How Sphinx makes the site of the pages in this folder: `make docs`.

The pages are written to be read in the repository as well, so what Markdown there and a site differ in is bridged here:
links that leave this folder, error codes that want an anchor each, and the flags of commands.
"""

import os
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

project = "pounce"
author = "the pounce authors"
copyright = author
release = version = version_of("pounce-core")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site"]
nitpicky = False

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "attrs_inline"]

# Two hyphens are the beginning of a flag.
smartquotes = False

# Docstrings are written to be read in a terminal: one backtick is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"pounce {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#7a3b00", "color-brand-content": "#8a4300"},
    "dark_css_variables": {"color-brand-primary": "#ffb26b", "color-brand-content": "#ffb26b"},
}
templates_path = ["templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "versions.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
# `make docs` names the versions it builds, the newest first; alone, there is nothing to choose from.
html_context = {
    "versions": os.environ.get("POUNCE_DOCS_VERSIONS", "").split(),
    "current_version": os.environ.get("POUNCE_DOCS_VERSION", ""),
}

# Programs that are shown are checked for their form only where the language has a lexer that fits them all.
suppress_warnings = ["misc.highlighting_failure"]

linkcheck_ignore = [r"http://(127\.0\.0\.1|localhost|\[::1\])"]

SOURCE = os.environ.get("POUNCE_SOURCE_URL", "").rstrip("/")
"""Where the repository can be read, for links to what has no page here; without it they are plain text."""

INCLUDED = {
    "ARCHITECTURE.md": "architecture",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "benchmarks/README.md": "benchmarks",
    "packages/pounce-h2/README.md": "http2",
}
"""Pages of the repository outside this folder, and what they are called on the site."""

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]*)(#[^)\s]*)?\)")
PICTURE = re.compile(r"^!\[([^\]]*)\]\((?:docs/)?pictures/([\w-]+\.svg)\)$", re.MULTILINE)
LONG_NAME = re.compile(r'(?<=<span class="pre">)[^<]{16,}(?=</span>)')
CODE_ROW = re.compile(r"^\| `(POUNCE_[A-Z0-9_]+)` \|", re.MULTILINE)


def rewrite_links(text: str, folder: Path) -> str:
    """The Markdown `text` of a page in `folder`, its links as they are on the site."""

    def rewritten(match: re.Match[str]) -> str:
        shown, path, anchor = match[1], match[2], match[3] or ""
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        target = Path(os.path.normpath(folder / path))
        inside = target.relative_to(ROOT).as_posix()
        if inside in INCLUDED:
            return f"[{shown}]({INCLUDED[inside]}.md{anchor})"
        if target.is_relative_to(DOCS):
            return f"[{shown}]({target.relative_to(DOCS).as_posix()}{anchor})"
        return f"[{shown}]({SOURCE}/{inside}{anchor})" if SOURCE else shown

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(rewritten, part) for part in parts)


def draw(text: str) -> str:
    """The text with its drawings in place of images: what is drawn in a page follows the theme that is chosen there."""

    def drawn(match: re.Match[str]) -> str:
        return f'<figure class="picture">\n{(DOCS / "pictures" / match[2]).read_text()}</figure>'

    return PICTURE.sub(drawn, text)


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    for path, included in INCLUDED.items():
        if name == included:
            source[0] = draw(rewrite_links((ROOT / path).read_text(), (ROOT / path).parent))
            return
    source[0] = draw(rewrite_links(source[0], DOCS))
    if name == "errors":
        source[0] = CODE_ROW.sub(lambda match: f'| <span id="{match[1].lower()}"></span>`{match[1]}` |', source[0])


def mark_blocks(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """An indented paragraph after one that ends in a colon is a program, as in Markdown."""
    for index in range(len(lines) - 2):
        if lines[index].endswith(":") and not lines[index + 1] and lines[index + 2].startswith("    "):
            lines[index] += ":"


def let_names_break(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """A long name in a text or a table may break after an underline, so that it does not push others off the page."""
    if "body" in context:
        context["body"] = LONG_NAME.sub(lambda match: match[0].replace("_", "_<wbr>"), context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", read_page)
    app.connect("html-page-context", let_names_break)
    app.connect("autodoc-process-docstring", mark_blocks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
