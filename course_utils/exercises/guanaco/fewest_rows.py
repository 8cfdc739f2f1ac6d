"""Can you fit these conversations into fewer rows?

Packing puts several conversations into one row of at most `room` tokens, so that less is padded. None is cut: what is
cut off is mostly the end of an answer, and with it the lesson of when to stop. `lengths` has the number of tokens of
each conversation, none of which is longer than a row.

Return the rows: a list of lists of places in `lengths`, each place once. The order does not matter, only the number of
rows. In the checker's cases the tokens go into as few rows as tokens can: all of them divided by `room`, rounded up. No
method is known that is fast and always finds the fewest. But a simple one gets there in all of these cases.
"""

import functools
import math
import random
from collections.abc import Callable

from course_utils.exercises.exercise import Exercise

Rows = list[list[int]]


def fewest_rows(lengths: list[int], room: int) -> list[list[int]]:
    """Which conversations share a row, by their places in `lengths`."""
    rows: list[list[int]] = []
    left: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        fitting = [row for row in range(len(rows)) if left[row] >= lengths[place]]
        if not fitting:
            rows.append([])
            left.append(room)
        row = min(fitting, key=left.__getitem__, default=-1)
        rows[row].append(place)
        left[row] -= lengths[place]
    return rows


@functools.cache
def cases() -> dict[str, tuple[list[int], int]]:
    rng = random.Random(0)
    threads = [max(20, min(500, round(rng.lognormvariate(5, 0.6)))) for _ in range(120)]
    return {
        "six conversations": ([30, 40, 50, 70, 60, 50], 100),
        "long and short ones, mixed": ([45, 90, 20, 95, 25, 70, 15, 25, 65, 20, 70, 90, 35], 100),
        "ten that leave little over": ([60, 40, 55, 20, 55, 25, 85, 45, 25, 75], 100),
        "120 threads, rows of 512": (threads, 512),
        "one conversation": ([100], 100),
    }


def outcome(answer: Callable[[list[int], int], Rows], lengths: list[int], room: int) -> dict[str, str]:
    """Whether each conversation is there once, whether the rows hold them, and whether there are as few as can be.

    Raises:
        ValueError: what is returned is no list of lists of places.
    """
    rows = answer(lengths, room)
    try:
        places = sorted(place for row in rows for place in row)
        tokens = [sum(lengths[place] for place in row) for row in rows]
    except (TypeError, IndexError):
        raise ValueError(
            f"Return a list of rows, each a list of places from 0 to {len(lengths) - 1} in `lengths`."
        ) from None
    whole = places == list(range(len(lengths)))
    fewest = math.ceil(sum(lengths) / room)
    return {
        "conversations": "each once" if whole else f"{len({*places})} of {len(lengths)}, in {len(places)} places",
        "room": "kept" if max(tokens, default=0) <= room else f"a row holds {max(tokens)} tokens of {room}",
        "rows": "the fewest" if len(rows) <= fewest else f"{len(rows)} rows, and {fewest} are enough",
    }


def _filled(lengths: list[int], room: int, order, choose) -> Rows:
    """Conversations in some order, each put into one of the rows that have room for it, or into a new one."""
    rows: Rows = []
    for place in sorted(range(len(lengths)), key=order):
        left = [room - sum(lengths[other] for other in row) for row in rows]
        fitting = choose([row for row in range(len(rows)) if left[row] >= lengths[place]], left)
        if fitting is None:
            rows.append([place])
        else:
            rows[fitting].append(place)
    return rows


def _first(fitting: list[int], left: list[int]) -> int | None:
    return fitting[0] if fitting else None


def _fullest(fitting: list[int], left: list[int]) -> int | None:
    return min(fitting, key=left.__getitem__, default=None)


def _emptiest(fitting: list[int], left: list[int]) -> int | None:
    return max(fitting, key=left.__getitem__, default=None)


def _newest(fitting: list[int], left: list[int]) -> int | None:
    return fitting[-1] if fitting and fitting[-1] == len(left) - 1 else None


def one_a_row(lengths, room):
    return [[place] for place in range(len(lengths))]


def next_row_when_full(lengths, room):
    return _filled(lengths, room, lambda place: 0, _newest)


def in_the_order_given(lengths, room):
    return _filled(lengths, room, lambda place: 0, _fullest)


def shortest_first(lengths, room):
    return _filled(lengths, room, lengths.__getitem__, _fullest)


def into_the_emptiest(lengths, room):
    return _filled(lengths, room, lambda place: -lengths[place], _emptiest)


def room_forgotten(lengths, room):
    return [list(range(len(lengths)))]


def what_does_not_fit_left_out(lengths, room):
    return next_row_when_full(lengths, room)[: math.ceil(sum(lengths) / room)]


def first_that_fits(lengths, room):
    return _filled(lengths, room, lambda place: -lengths[place], _first)


EXERCISE = Exercise(
    answer=fewest_rows,
    kind="make it fit",
    difficulty=2,
    minutes=12,
    cases=cases,
    outcome=outcome,
    mistakes={
        one_a_row: "{yours}: each conversation has a row of its own. That is no packing.",
        next_row_when_full: "{yours}: only the newest row was filled, in the order given. A short conversation may fit "
        "into a row that was left behind.",
        in_the_order_given: "{yours}: the conversations were taken in the order given. A long one that comes late "
        "finds only gaps that are too small.",
        shortest_first: "{yours}: that many come out if the short ones are taken first, and also if the long ones are, "
        "but only the newest row is filled. The short ones are those that could fill the gaps of older rows.",
        into_the_emptiest: "{yours}: each was put where most room was left. That leaves many small gaps instead of few "
        "large ones.",
        room_forgotten: "Wrong for {wrong} of {cases} inputs: {yours}.",
        what_does_not_fit_left_out: "Wrong for {wrong} of {cases} inputs: conversations are missing, {yours}.",
    },
    hints=(
        "Which conversations are the hardest to find a place for? Take them first, while there is room.",
        "Longest first. Of the rows that still have room for it take the one with the least room left; if there is "
        "none, begin a new one.",
    ),
    alternatives=(first_that_fits,),
)
