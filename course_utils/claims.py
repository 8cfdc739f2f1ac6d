"""Did the claim hold? A notebook records a verdict on each statement it measured; the ledger shows them all.

The statements, with their sources, are in `data/claims.jsonl`.
"""

import html
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from course_utils.datafiles import load_claims

HOLDS, PARTLY, FAILS = "holds", "holds partly", "does not hold at this scale"
LEDGER_TYPE = "application/vnd.lora-course.claims+json"  # the rows, in the ledger cell's output


@dataclass(frozen=True)
class Claim:
    """A statement that somebody published, what was measured about it, and whether it held."""

    id: str
    statement: str
    source: str
    measured: str
    verdict: str


_recorded: dict[str, Claim] = {}


def record(claim_id: str, measured: str, *, holds: bool, partly: bool = False) -> None:
    """Put a claim of `data/claims.jsonl` into the ledger, and print its statement and verdict.

    Args:
        claim_id: its id there.
        measured: what was measured, with units; what is compared by the tests and quoted by the prose.
        holds: whether the statement held as it stands; if not, `partly` says whether a part of it did.

    Raises:
        ValueError: there is no claim of that id.
    """
    known = load_claims()
    if claim_id not in known:
        raise ValueError(f"Unknown claim {claim_id!r}; data/claims.jsonl has {', '.join(known)}.")
    verdict = HOLDS if holds else PARTLY if partly else FAILS
    row = known[claim_id]
    _recorded[claim_id] = Claim(claim_id, row["statement"], row["source"], measured, verdict)
    print(f"[{claim_id}] {row['statement']}\n     {verdict}: {measured}")


class Ledger:
    """Claims with their verdicts: a table in a notebook, counted and listed as text."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        self.claims = list(claims)

    def __repr__(self) -> str:
        lines = [f"{len(self.claims)} claims"]
        for verdict in (HOLDS, PARTLY, FAILS):
            ids = [claim.id for claim in self.claims if claim.verdict == verdict]
            lines.append(f"{len(ids)} {verdict}: {', '.join(ids)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{field.name}</th>" for field in fields(Claim))
        rows = (
            "".join(f"<td style='text-align:left'>{html.escape(value)}</td>" for value in asdict(claim).values())
            for claim in self.claims
        )
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {
            "text/plain": repr(self),
            "text/html": self._repr_html_(),
            LEDGER_TYPE: [asdict(claim) for claim in self.claims],
        }


def ledger() -> Ledger:
    """All claims that this session recorded, in the order of recording."""
    return Ledger(_recorded.values())
