"""What stands between two marks of a page? Generated text, which is put there and read again from there."""

import re
from pathlib import Path

from course_utils.core.files import write_whole


def between(page: Path, mark: str) -> str:
    """The text between `<!-- mark -->` and `<!-- /mark -->`, each on a line of its own.

    Raises:
        ValueError: the page has no such marks.
    """
    return _found(page, page.read_text(encoding="utf-8"), mark)[0]


def put_between(page: Path, mark: str, text: str) -> None:
    """Replace the text between two marks; the rest of the page stays as it is.

    Raises:
        ValueError: the page has no such marks.
    """
    write_whole(page, replaced(page, mark, text))


def replaced(page: Path, mark: str, text: str) -> str:
    """The page as `put_between` would write it.

    Raises:
        ValueError: the page has no such marks.
    """
    content = page.read_text(encoding="utf-8")
    start, end = _found(page, content, mark).span()
    return content[:start] + text + content[end:]


def _found(page: Path, content: str, mark: str) -> re.Match[str]:
    found = re.search(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", content, re.DOTALL)
    if not found:
        raise ValueError(f"{page.name}: no lines '<!-- {mark} -->' and '<!-- /{mark} -->'; text goes between them.")
    return found
