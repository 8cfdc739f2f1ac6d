"""The narrow tasks are what their writer writes, and their answers are right by other means."""

import json
import re

import pytest

from course_utils import datafiles
from course_utils.core import files
from course_utils.datafiles import SPLITS, tasks


def test_tasks_are_those_that_the_writer_writes(tmp_path, monkeypatch):
    shipped = files.data_dir() / "tasks"
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    tasks.main()
    for path in shipped.glob("*.jsonl"):
        assert path.read_bytes() == (tmp_path / "tasks" / path.name).read_bytes()


@pytest.mark.parametrize(("name", "test"), [("dates", 60), ("units", 60), ("records", 60), ("addition", 200)])
def test_task_sizes_and_no_prompt_twice(name, test):
    splits = {split: datafiles.load_task(name, split) for split in SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 300, "validation": 60, "test": test}
    prompts = [row["prompt"] for rows in splits.values() for row in rows]
    assert len(set(prompts)) == len(prompts)


def test_task_answers_are_right():
    """Dates against the calendar of the standard library, units against exact decimals, records against JSON."""
    from datetime import date, datetime
    from decimal import Decimal

    factors = {"km m": 1000, "m cm": 100, "cm mm": 10, "kg g": 1000, "l ml": 1000, "t kg": 1000}
    for split in SPLITS:
        for row in datafiles.load_task("dates", split):
            text = re.sub(r"(\d)(st|nd|rd|th)\b|\bthe |\bof |[.,]", r"\1", row["prompt"])
            formats = ("%B %d %Y", "%d %B %Y", "%b %d %Y", "%d %b %Y")
            parsed = [date_or_none(datetime, text, form) for form in formats]
            assert date.fromisoformat(row["answer"]) in parsed, row
        for row in datafiles.load_task("units", split):
            number, big, small = re.search(r"([\d.]+) (\w+) (?:to|in) (\w+)[.?]", row["prompt"]).groups()
            assert row["answer"] == f"{Decimal(number) * factors[f'{big} {small}']:.0f} {small}", row
        for row in datafiles.load_task("records", split):
            record = json.loads(row["answer"])
            assert list(record) == ["item", "color", "quantity", "city"]
            assert all(str(value) in row["prompt"] for value in record.values())


def test_sums_are_right_and_no_sum_is_asked_the_other_way_round():
    pairs = []
    for row in (row for split in SPLITS for row in datafiles.load_task("addition", split)):
        first, second = map(int, re.fullmatch(r"(\d{3}) \+ (\d{3}) =", row["prompt"]).groups())
        assert row["answer"] == str(first + second)
        pairs.append(frozenset((first, second)))
    assert len(set(pairs)) == len(pairs)


def date_or_none(datetime, text: str, form: str):
    try:
        return datetime.strptime(text, form).date()
    except ValueError:
        return None
