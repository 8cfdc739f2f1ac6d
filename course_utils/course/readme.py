"""What does the README say of the notebooks? Its table of claims and its pictures, taken from the executed ones."""

import base64
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import nbformat

from course_utils.claims import FAILS, HOLDS, LEDGER_TYPE, PARTLY, Claim
from course_utils.core.files import ROOT, write_whole

README_TABLE = re.compile(r"(?<=<!-- claims -->\n).*?(?=<!-- /claims -->)", re.DOTALL)
README_PICTURES = {"learning_against_forgetting.png": "at accuracy", "five_methods.png": "prefix tuning over"}


def collect(notebooks: Iterable[Path]) -> list[Claim]:
    """The claims in the ledgers of executed notebooks."""
    found = []
    for path in notebooks:
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                found += [Claim(**row) for row in output.get("data", {}).get(LEDGER_TYPE, [])]
    return found


def markdown(claims: Iterable[Claim]) -> str:
    """The claims as the README's table, under a line that counts the verdicts."""
    claims = list(claims)
    count = Counter(claim.verdict for claim in claims)
    counts = ", ".join(f"{count[verdict]} {verdict}" for verdict in (HOLDS, PARTLY, FAILS))
    rows = [
        f"Of {len(claims)} claims: {counts}.",
        "",
        "| claim | source | measured here | verdict |",
        "|---|---|---|---|",
    ]
    for claim in claims:
        cells = (claim.statement, claim.source, claim.measured, f"**{claim.verdict}**")
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def write_readme(notebooks: Iterable[Path], readme: Path = ROOT / "README.md") -> None:
    """Put the table of the claims of `notebooks` between the README's claims marks.

    Raises:
        ValueError: the README has no such marks.
    """
    text = readme.read_text(encoding="utf-8")
    if not README_TABLE.search(text):
        raise ValueError(
            f"{readme.name}: no lines '<!-- claims -->' and '<!-- /claims -->' ; the table goes between them."
        )
    write_whole(readme, README_TABLE.sub(lambda _: markdown(collect(notebooks)), text))


def readme_pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """The pictures of a notebook that the README shows, by file name; they are known by words of their alt text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    return {
        name: base64.b64decode(output.data["image/png"])
        for output in outputs
        for name, words in README_PICTURES.items()
        if words in output.metadata.get("image/png", {}).get("alt", "")
    }
