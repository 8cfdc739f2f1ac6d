"""What do the notebooks say of all claims? CLAIMS.md, written from the verdicts in the executed notebooks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat

from course_utils.claims import VERDICTS, VERDICTS_TYPE, Verdict, load_claims
from course_utils.core.files import ROOT, notebooks, write_whole
from course_utils.course.sections import title

KINDS = {
    "run": "an experiment, in a setting that the verdict names",
    "exact": "a count, a formula or an identity",
    "code": "what a library does",
    "print": "numbers printed in a paper, against its own formula or data",
    "belief": "what people say, borne out or refuted by one case",
}


def collect(paths: Iterable[Path]) -> list[Verdict]:
    """The verdicts in the outputs of executed notebooks."""
    return [given for path in paths for given in verdicts_of(nbformat.read(path, as_version=4))]


def verdicts_of(notebook: nbformat.NotebookNode) -> list[Verdict]:
    """The verdicts in the outputs of one executed notebook."""
    return [
        Verdict(**row)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for row in output.get("data", {}).get(VERDICTS_TYPE, [])
    ]


def counts(given: Iterable[Verdict]) -> str:
    """How often each verdict was given, kind by kind, as a table."""
    found = Counter((each.kind, each.verdict) for each in given)
    rows = []
    for kind, words in VERDICTS.items():
        said = [f"{found[kind, word]} {word}" for word in words.values() if found[kind, word]]
        rows.append((f"`{kind}`: {KINDS[kind]}", " · ".join(said) or "none yet"))
    return table(("a claim about", "verdicts"), rows)


def rows_of(given: Iterable[Verdict]) -> str:
    """Verdicts one by one, as a table."""
    head = ("id", "claim", "source", "kind", "measured here", "verdict")
    return table(head, [(v.id, v.statement, v.source, v.kind, v.measured, f"**{v.verdict}**") for v in given])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def page() -> str:
    """The text of CLAIMS.md."""
    known, given = load_claims(), collect(notebooks())
    owed = sorted(known.keys() - {each.id for each in given})
    parts = [
        "# All claims, and what was measured",
        "Written by `make docs` from the executed notebooks. A claim is a statement that somebody published, "
        "or that is commonly believed; what is measured, and by which rule it is judged, stands in the "
        "notebook, beside the id. A verdict speaks of what was measured here: one small model, few steps, two"
        " CPU cores. ± is the half-width of a 95 % interval over seeds.",
        f"{len(given)} of {len(known)} claims have a verdict.",
        counts(given),
        "Every kind has its own words:",
        table(("kind", "verdicts"), [(kind, " · ".join(words.values())) for kind, words in VERDICTS.items()]),
    ]
    for path in notebooks():
        if found := collect([path]):
            parts += [
                f"## [{title(nbformat.read(path, as_version=4))}]({path.relative_to(ROOT).as_posix()})",
                rows_of(found),
            ]
    parts.append("## Not measured")
    parts.append(table(("id", "claim", "source"), [(id, known[id]["statement"], known[id]["source"]) for id in owed]))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def write_page(target: Path = ROOT / "CLAIMS.md") -> None:
    """Write CLAIMS.md."""
    write_whole(target, page())
