"""What does the README show of the notebooks? Counts of verdicts, the claims that surprise, and pictures."""

import base64
from collections.abc import Iterable

import nbformat

from course_utils.claims import Verdict, load_claims
from course_utils.core.files import ROOT, notebooks
from course_utils.course import marks, sections
from course_utils.course.claims_page import collect, counts, table

TAG = "readme="  # `readme=five_methods` on a cell: its picture is notebooks/five_methods.png


def claims_part() -> str:
    """The counts of all verdicts, and the claims that `data/claims.jsonl` calls a surprise."""
    given = collect(notebooks())
    return f"{counts(given)}\nThe {len(surprising(given))} that surprise most:\n\n{surprises(given)}"


def surprising(given: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts on claims that `data/claims.jsonl` calls a surprise."""
    known = load_claims()
    return [each for each in given if known[each.id].get("surprise")]


def surprises(given: Iterable[Verdict]) -> str:
    """These, with what was measured, as a table."""
    rows = [(each.statement, each.measured, f"**{each.verdict}**") for each in surprising(given)]
    return table(("claim", "measured here", "verdict"), rows)


def write_readme() -> None:
    """Put that part between the README's marks."""
    marks.put_between(ROOT / "README.md", "claims", claims_part())


def pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """The pictures of a notebook that the README shows, by file name.

    Raises:
        ValueError: a cell with such a tag has not exactly one picture; names notebook and cell.
    """
    found, title = {}, sections.title(notebook)
    for number, cell in enumerate(notebook.cells):
        for tag in cell.metadata.get("tags", []):
            if tag.startswith(TAG):
                shown = [o.data["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
                if len(shown) != 1:
                    raise ValueError(
                        f"{title}: cell {number} with the tag {tag!r} has {len(shown)} pictures; it needs one."
                    )
                found[f"{tag.removeprefix(TAG)}.png"] = base64.b64decode(shown[0])
    return found
