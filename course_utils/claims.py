"""Did the claim hold? A notebook gives a verdict on each statement that it measured, in the words of the claim's kind.

The statements, with their kinds and sources, are in `data/claims.jsonl`.
"""

import html
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from course_utils.core.rows import fail, short
from course_utils.datafiles.collection import placed

# What a claim can be about, and what a verdict then says, from the best to the worst that can be found.
VERDICTS = {
    "run": {
        "holds": "seen here",
        "partly": "partly seen here",
        "opposite": "the opposite seen here",
        "otherwise": "not decided here",
    },
    "exact": {"holds": "true", "partly": "true under a condition", "otherwise": "false"},
    "code": {"holds": "the code agrees", "otherwise": "the code does otherwise"},
    "print": {"holds": "adds up", "partly": "adds up under a condition", "otherwise": "does not add up"},
    "belief": {"holds": "borne out", "partly": "needs a condition", "otherwise": "a counterexample"},
}
VERDICTS_TYPE = "application/vnd.lora-course.verdicts+json"  # the rows, in the output of a notebook's list of verdicts


@dataclass(frozen=True)
class Verdict:
    """A statement that somebody published, what was measured about it, and what that says of it."""

    id: str
    kind: str
    statement: str
    source: str
    measured: str
    verdict: str


_given: dict[str, Verdict] = {}


def load_claims() -> dict[str, dict[str, Any]]:
    """The statements by id: `notebook`, `kind`, `statement`, `source`, and `surprise` on those that the README shows.

    Raises:
        DataError: a field is missing, a kind is none of `VERDICTS`, or an id stands twice; names line and field.
    """
    known = {}
    for place, row in placed("claims.jsonl", "id", "notebook", "kind", "statement", "source"):
        if row["kind"] not in VERDICTS:
            fail(place, "kind", f"unknown kind {short(row['kind'])}; choose from {', '.join(VERDICTS)}")
        if row["id"] in known:
            fail(place, "id", f"{short(row['id'])} stands there twice; give each claim an id of its own")
        known[row["id"]] = row
    return known


def verdict(claim_id: str, measured: str, *, holds: bool, partly: bool = False, opposite: bool = False) -> None:
    """Give a claim of `data/claims.jsonl` its verdict, and print both.

    Args:
        claim_id: its id there.
        measured: what was measured, with units; what is compared by the tests and quoted by the prose.
        holds: whether the statement held as it stands.
        partly: if not, whether a part of it did, or all of it under a condition.
        opposite: of a `run`: whether the opposite was seen. A run that shows none of the three decides nothing.

    Raises:
        ValueError: there is no claim of that id, its kind has no such verdict, or it cannot be both.
    """
    known = load_claims()
    if claim_id not in known:
        raise ValueError(f"Unknown claim {claim_id!r}; data/claims.jsonl has {', '.join(known)}.")
    if opposite and (holds or partly):
        raise ValueError(f"Claim {claim_id!r}: the opposite was seen, and the statement too; correct the conditions.")
    row = known[claim_id]
    words, outcomes = VERDICTS[row["kind"]], {"holds": holds, "partly": partly, "opposite": opposite}
    outcome = next((name for name, found in outcomes.items() if found), "otherwise")
    if outcome not in words:
        raise ValueError(
            f"Claim {claim_id!r} is of the kind {row['kind']!r}, which has no verdict {outcome!r}, only "
            f"{', '.join(words)}. Leave {outcome}= out, or change the kind in data/claims.jsonl."
        )
    given = Verdict(claim_id, row["kind"], row["statement"], row["source"], measured, words[outcome])
    _given[claim_id] = given
    print(f"[{claim_id}] {given.statement}\n     {given.verdict}: {measured}")


class Verdicts:
    """Verdicts: a table in a notebook, counted by kind and listed as text."""

    def __init__(self, given: Iterable[Verdict]) -> None:
        self.given = list(given)

    def __repr__(self) -> str:
        lines = [f"{len(self.given)} verdicts"]
        for kind, words in VERDICTS.items():
            for word in words.values():
                ids = [each.id for each in self.given if (each.kind, each.verdict) == (kind, word)]
                if ids:
                    lines.append(f"{kind:7}{len(ids)} {word}: {', '.join(ids)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{field.name}</th>" for field in fields(Verdict))
        rows = (
            "".join(f"<td style='text-align:left'>{html.escape(value)}</td>" for value in asdict(each).values())
            for each in self.given
        )
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {
            "text/plain": repr(self),
            "text/html": self._repr_html_(),
            VERDICTS_TYPE: [asdict(each) for each in self.given],
        }


def verdicts() -> Verdicts:
    """All verdicts of this session, in the order in which they were given."""
    return Verdicts(_given.values())
