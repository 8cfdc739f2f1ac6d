"""What are the narrow tasks? Written by `python -m course_utils.datafiles.tasks`, and read.

Each has 300 training, 60 validation and 60 test rows with an exact answer (`addition` 200 test rows, for a finer
scale), and no prompt occurs twice. The writer is seeded, so it always writes the same files.
"""

import calendar
import json
import random
from collections.abc import Callable

from course_utils.core import files
from course_utils.datafiles.collection import checked, named_file

SIZES = {"train": 300, "validation": 60, "test": 60}
FINER = {**SIZES, "test": 200}
MONTHS = list(calendar.month_name)[1:]
ITEMS = "mugs lamps chairs plates towels candles baskets pillows frames clocks bowls rugs".split()
COLORS = "red blue green white black yellow gray brown".split()
CITIES = "Lisbon Oslo Quito Cairo Dublin Kyoto Lima Prague Nairobi Turin Perth Boston".split()


def load_task(name: str, split: str) -> list[dict[str, str]]:
    """One split of a narrow task with exact answers: dicts with `prompt` and `answer`.

    Raises:
        ValueError: there is no such task or split; names those there are.
    """
    named_file("task", "tasks", f"{name}.jsonl")
    rows = [row for row in checked(f"tasks/{name}.jsonl", "split", "prompt", "answer") if row["split"] == split]
    if not rows:
        raise ValueError(f"Unknown split {split!r}; choose train, validation or test.")
    return rows


def ordinal(day: int) -> str:
    """1 -> 1st, 2 -> 2nd, 11 -> 11th, 23 -> 23rd."""
    suffix = "th" if 10 <= day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


def dates(rng: random.Random) -> tuple[str, str]:
    """An English date -> ISO 8601."""
    year, month = rng.randint(1900, 2099), rng.randint(1, 12)
    day = rng.randint(1, calendar.monthrange(year, month)[1])
    name = MONTHS[month - 1]
    written = rng.choice(
        [
            f"{name} {day}, {year}",
            f"{day} {name} {year}",
            f"the {ordinal(day)} of {name} {year}",
            f"{name[:3]} {ordinal(day)}, {year}",
            f"{day} {name[:3]}. {year}",
        ]
    )
    return written, f"{year:04d}-{month:02d}-{day:02d}"


def units(rng: random.Random) -> tuple[str, str]:
    """A metric quantity -> the same in a smaller unit, in one fixed format."""
    big, small, factor = rng.choice(
        [("km", "m", 1000), ("m", "cm", 100), ("cm", "mm", 10), ("kg", "g", 1000), ("l", "ml", 1000), ("t", "kg", 1000)]
    )
    number = rng.randint(2, 99) if rng.random() < 0.5 else rng.randint(11, 999) / 10
    verb = rng.choice(["Convert {} {} to {}.", "{} {} in {}?", "How much is {} {} in {}?"])
    return verb.format(f"{number:g}", big, small), f"{round(number * factor)} {small}"


def records(rng: random.Random) -> tuple[str, str]:
    """A sentence about an order -> a strict JSON record."""
    item = rng.choice(ITEMS)
    color = rng.choice(COLORS)
    city = rng.choice(CITIES)
    count = rng.randint(2, 40)
    sentence = rng.choice(
        [
            f"Please send {count} {color} {item} to {city}.",
            f"{city} needs {count} {item}, all {color}.",
            f"We shipped {count} {color} {item} to our shop in {city}.",
            f"A customer in {city} wants {count} {item} in {color}.",
        ]
    )
    answer = {"item": item, "color": color, "quantity": count, "city": city}
    return sentence, json.dumps(answer)


def addition(rng: random.Random) -> tuple[str, str]:
    """Two numbers of three digits, the larger first, so that no sum is asked twice -> their sum, of three digits."""
    total = rng.randint(200, 999)
    smaller = rng.randint(100, total // 2)
    return f"{total - smaller} + {smaller} =", str(total)


def make(
    task: Callable[[random.Random], tuple[str, str]], seed: int, sizes: dict[str, int] = SIZES
) -> list[dict[str, str]]:
    """All examples of a task, without repeated prompts, each with its split."""
    rng, answers = random.Random(seed), {}
    while len(answers) < sum(sizes.values()):
        prompt, answer = task(rng)
        answers.setdefault(prompt, answer)
    splits = [split for split, size in sizes.items() for _ in range(size)]
    return [{"split": s, "prompt": p, "answer": a} for s, (p, a) in zip(splits, answers.items(), strict=True)]


def main() -> None:
    for seed, task in enumerate((dates, units, records, addition)):
        rows = make(task, seed, FINER if task is addition else SIZES)
        lines = [json.dumps(example, ensure_ascii=False) + "\n" for example in rows]
        files.write_whole(files.data_dir() / "tasks" / f"{task.__name__}.jsonl", "".join(lines))


if __name__ == "__main__":
    main()
