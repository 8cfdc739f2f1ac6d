"""Which answer do people prefer? A ballot that hides who answered, and its widget for a notebook."""

import html
from typing import TYPE_CHECKING

from course_utils.tournament.verdicts import Tournament

if TYPE_CHECKING:
    import ipywidgets

KEYS = {"1": "first", "2": "second", "0": "tie"}


class Ballot:
    """The matches that wait for a vote, one after the other; make its tournament with a `sides_seed`.

    A vote is on the disk when it is given, and a ballot made again goes on behind the last one.
    """

    def __init__(self, tournament: Tournament) -> None:
        self.tournament = tournament
        self._waiting = tournament.waiting()

    @property
    def shown(self) -> tuple[str, str, str] | None:
        """The question, and the answers on the left and on the right; None when all votes are given."""
        return self.tournament.seen(self._waiting[0]) if self._waiting else None

    @property
    def progress(self) -> str:
        """How many votes are given, of how many."""
        total = len(self.tournament.matches)
        return f"{total - len(self._waiting)} of {total} votes"

    def vote(self, key: str) -> None:
        """Record a vote, "1" for the left, "2" for the right, "0" for a tie, and turn to the next match.

        Raises:
            ValueError: another key, or no match is left.
        """
        if key not in KEYS:
            raise ValueError(f"No key {key!r}; 1 is left, 2 is right, 0 is a tie.")
        if not self._waiting:
            raise ValueError("All votes are given.")
        self.tournament.record(self._waiting[0], KEYS[key])
        del self._waiting[0]


def panel(ballot: Ballot) -> "ipywidgets.VBox":
    """The ballot as a widget: buttons, and a field that takes the keys 1, 2 and 0.

    Raises:
        ImportError: ipywidgets is missing.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError("The ballot is shown by ipywidgets, which is missing: `pip install ipywidgets`.") from error
    question, left, right, progress = (ipywidgets.HTML() for _ in range(4))
    names = {"1": "Left is better (1)", "0": "Equal (0)", "2": "Right is better (2)"}
    buttons = {key: ipywidgets.Button(description=name) for key, name in names.items()}
    keys = ipywidgets.Text(placeholder="or type 1, 2 or 0 here", continuous_update=True)
    left.layout.width = right.layout.width = "50%"

    def show() -> None:
        texts = ballot.shown or ("All votes are given. Thank you.", "", "")
        for place, text in zip((question, left, right), texts, strict=True):
            place.value = f'<div style="white-space:pre-wrap;padding:.5em">{html.escape(text)}</div>'
        progress.value = ballot.progress
        for button in buttons.values():
            button.disabled = ballot.shown is None

    def vote(key: str) -> None:
        if ballot.shown and key in KEYS:
            ballot.vote(key)
            show()

    def typed(change: dict[str, str]) -> None:
        if change["new"]:
            keys.value = ""
            vote(change["new"].strip())

    for key, button in buttons.items():
        button.on_click(lambda _, key=key: vote(key))
    keys.observe(typed, "value")
    show()
    rows = (ipywidgets.HBox([left, right]), ipywidgets.HBox([*buttons.values(), keys]))
    return ipywidgets.VBox([question, *rows, progress])
