"""What does a table of a Markdown page say?"""

from itertools import pairwise

from markdown_it import MarkdownIt

MARKDOWN = MarkdownIt("commonmark").enable("table")


def rows(text: str, heading: str) -> list[list[str]]:
    """The first table below a heading, row by row without its head; the cells are Markdown.

    Raises:
        ValueError: there is no such heading, or no table below it.
    """
    found: list[list[str]] = []
    below = False
    for before, token in pairwise(MARKDOWN.parse(text)):
        if before.type == "heading_open":
            below = token.content == heading
        elif below and token.type == "tr_open":
            found.append([])
        elif below and before.type == "td_open":
            found[-1].append(token.content)
        elif below and token.type == "table_close":
            return found[1:]
    raise ValueError(f"There is no table below a heading {heading!r}.")


def html(cell: str) -> str:
    """A cell as HTML."""
    return MARKDOWN.renderInline(cell)
