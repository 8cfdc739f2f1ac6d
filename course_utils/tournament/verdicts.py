"""Who won against whom on which prompt? Verdicts that were published, and those of an own tournament, in its file."""

import hashlib
import itertools
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from course_utils.core import files
from course_utils.core.rows import fail, read_rows
from course_utils.datafiles import load_figures

OUTCOMES = ("first", "second", "tie", "unparsed")  # unparsed: the judge's reply names no winner
COLUMNS = ["prompt", "first", "second", "winner"]


@dataclass(frozen=True)
class Match:
    """Two models' answers to one prompt, in the order in which a judge sees them."""

    prompt: str
    first: str
    second: str


def published() -> pd.DataFrame:
    """GPT-4's 4,480 verdicts on the 80 Vicuna prompts, as the QLoRA repository has them; one row a verdict.

    Columns: `prompt`, `first` and `second` (models, in the order shown) and `winner` (of `OUTCOMES`). What was shipped
    are counts, which keep the two orders of a prompt together, but not one prompt over several pairs: the numbers of
    the prompts mean something within a pair alone.
    """
    rows = []
    for (a, b), pair in load_figures("guanaco_gpt4_verdicts").groupby(["model_a", "model_b"], sort=False):
        each = pair.loc[pair.index.repeat(pair["prompts"])]
        for first, second, winners, first_is in (
            (a, b, each["winner_when_a_shown_first"], "a"),
            (b, a, each["winner_when_b_shown_first"], "b"),
        ):
            places = {"a": "second", "b": "second", first_is: "first"}
            rows += [(f"{number}", first, second, places.get(winner, winner)) for number, winner in enumerate(winners)]
    return pd.DataFrame(rows, columns=COLUMNS)


def both_orders(matches: pd.DataFrame) -> pd.DataFrame:
    """What was said of the same two answers in the one order and in the other; one row for each prompt and pair.

    Columns: `prompt`, `a` and `b` (models by the alphabet), and `a_first` and `b_first`: who won when that one was
    shown first, by name, or "tie" or "unparsed".

    Raises:
        ValueError: a match has two verdicts in one order, or one order only; names it.
    """
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in matches[COLUMNS].to_dict("records"):
        a, b = sorted((row["first"], row["second"]))
        orders = found.setdefault((row["prompt"], a, b), {})
        order = "a_first" if row["first"] == a else "b_first"
        if order in orders:
            raise ValueError(f"Prompt {row['prompt']}, {a} against {b}: there are two verdicts in one order; keep one.")
        orders[order] = row.get(row["winner"], row["winner"])  # of "first" and "second", the model
    for (prompt, a, b), orders in found.items():
        if len(orders) < 2:
            raise ValueError(f"Prompt {prompt}, {a} against {b}: judged in one order only; judge the other, too.")
    rows = [(*key, orders["a_first"], orders["b_first"]) for key, orders in found.items()]
    return pd.DataFrame(rows, columns=["prompt", "a", "b", "a_first", "b_first"])


class Tournament:
    """Models' answers to the same prompts, and the verdicts of one judge on them, in a file that survives a kill.

    A verdict is on the disk as soon as it is recorded, and what has one is not judged again.
    """

    def __init__(
        self,
        answers: Mapping[str, Sequence[str]],
        prompts: Sequence[Mapping[str, str]],
        path: str | Path,
        judge: str,
        *,
        sides_seed: int | None = None,
    ) -> None:
        """Begin the tournament, or take it up where its file ends.

        Args:
            answers: of each model, by its name, in the order of the prompts.
            prompts: rows with `id` and `text`, as `datafiles.load_prompts` returns them.
            path: a file of JSON lines, made with the first verdict.
            judge: its name; a file holds the verdicts of one.
            sides_seed: None has all pairs judged in both orders. With a number, which fixes the chance, each pair comes
                in one order, and pairs and sides are shuffled, for a judge that would remember.

        Raises:
            ValueError: fewer than two models, or not one answer for each prompt.
            DataError: the file holds verdicts of another judge, or on other answers; names the line.
        """
        if len(answers) < 2:
            raise ValueError(f"A tournament needs two models or more, and here is {len(answers)}.")
        for model, texts in answers.items():
            if not prompts or len(texts) != len(prompts):
                raise ValueError(f"{model}: {len(texts)} answers to {len(prompts)} prompts; pass one for each prompt.")
        self.path, self.judge = Path(path), judge
        self._questions = {prompt["id"]: prompt["text"] for prompt in prompts}
        self._answers = {
            (prompt["id"], model): text
            for model, texts in answers.items()
            for prompt, text in zip(prompts, texts, strict=True)
        }
        pairs = [(prompt, *pair) for prompt in self._questions for pair in itertools.combinations(answers, 2)]
        if sides_seed is None:
            self.matches = [Match(*each) for prompt, a, b in pairs for each in ((prompt, a, b), (prompt, b, a))]
        else:
            chance = random.Random(sides_seed)
            self.matches = [
                Match(prompt, *chance.sample(pair, 2)) for prompt, *pair in chance.sample(pairs, len(pairs))
            ]
        self.done = self._read()

    def seen(self, match: Match) -> tuple[str, str, str]:
        """What a judge may see of a match: the question and both answers, and no name of a model."""
        first, second = self._answers[match.prompt, match.first], self._answers[match.prompt, match.second]
        return self._questions[match.prompt], first, second

    def waiting(self) -> list[Match]:
        """Those without a verdict."""
        return [match for match in self.matches if match not in self.done]

    def record(self, match: Match, winner: str) -> None:
        """Write down one verdict; when this returns, it is on the disk.

        Raises:
            ValueError: `winner` is none of `OUTCOMES`.
        """
        if winner not in OUTCOMES:
            raise ValueError(f"A verdict is one of {', '.join(OUTCOMES)}; the judge {self.judge!r} said {winner!r}.")
        line = {"judge": self.judge, **asdict(match), "winner": winner, "seen": self._hash(match)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[match] = winner

    def verdicts(self) -> pd.DataFrame:
        """All verdicts there are, in the shape of `published`."""
        return pd.DataFrame([(*asdict(match).values(), winner) for match, winner in self.done.items()], columns=COLUMNS)

    def _read(self) -> dict[Match, str]:
        """The verdicts in the file; a last line that a kill has cut off is taken out, and judged again."""
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            files.write_whole(self.path, whole)
        found, known = {}, set(self.matches)
        for place, row in read_rows(self.path):
            if not isinstance(row, dict) or row.get("winner") not in OUTCOMES:
                fail(place, "winner", "here stands no verdict; name another file")
            if row.get("judge") != self.judge:
                fail(place, "judge", f"{row.get('judge')!r}, not {self.judge!r}; name another file for this judge")
            match = Match(*(row.get(name) for name in COLUMNS[:3]))
            if match not in known or row.get("seen") != self._hash(match):
                fail(place, "seen", "this verdict is on other answers, or sides; name another file for these")
            found[match] = row["winner"]
        return found

    def _hash(self, match: Match) -> str:
        """Of what the judge saw: a model that answers otherwise today is another one."""
        return hashlib.sha256(json.dumps(self.seen(match)).encode()).hexdigest()[:16]
