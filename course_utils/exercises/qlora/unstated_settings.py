"""Which settings were not stated?

A page prints peaks of QLoRA on TinyLlama-1.1B, with texts of 512 tokens, at several micro-batches. It does not say
whether the layers were checkpointed, whether the constants were quantized again (`"nf4-dq"`) or not (`"nf4"`), and
whether its GB are 10^9 or 2^30 bytes. The second half of the lesson left it at that. But peaks at several
micro-batches say more than one does: they lie on a line, and a line has a height and a slope.

`peaks` maps micro-batches to the printed numbers, and `planned_bytes` plans one of them. Return the settings whose
plans come nearest: a dict with `checkpointing` (True or False), `precision`, and `unit` (1e9 or 2**30). Nearest is
where the *largest* relative error over the micro-batches is smallest. (It is the best of eight guesses: that nothing
else differs, such as a version of a library, is assumed.)
"""

import functools
import itertools

import numpy as np

from course_utils import memory
from course_utils.exercises.exercise import Exercise

Peaks = dict[int, float]
EVERY = tuple(itertools.product((False, True), ("nf4", "nf4-dq"), (1e9, 2**30)))
NAMES = "checkpointing", "precision", "unit"


@functools.cache
def planned_bytes(micro_batch: int, checkpointing: bool, precision: str) -> int:
    """The planned peak of QLoRA on TinyLlama-1.1B with texts of 512 tokens."""
    settings = {"micro_batch": micro_batch, "checkpointing": checkpointing, "precision": precision}
    return memory.plan("TinyLlama-1.1B", method="qlora", length=512, **settings).peak


def unstated_settings(peaks: dict[int, float]) -> dict[str, bool | str | float]:
    """The checkpointing, precision and unit whose plans come nearest to the printed peaks, by micro-batch."""

    def worst(checkpointing: bool, precision: str, unit: float) -> float:
        return max(abs(planned_bytes(n, checkpointing, precision) / unit / peak - 1) for n, peak in peaks.items())

    every = itertools.product((False, True), ("nf4", "nf4-dq"), (1e9, 2**30))
    return dict(zip(("checkpointing", "precision", "unit"), min(every, key=lambda one: worst(*one)), strict=True))


@functools.cache
def cases() -> dict[str, tuple[Peaks]]:
    def printed(checkpointing: bool, precision: str, unit: float, errors: Peaks) -> tuple[Peaks]:
        plans = {n: planned_bytes(n, checkpointing, precision) / unit for n in errors}
        return ({n: round(plans[n] * (1 + error), 3) for n, error in errors.items()},)

    return {
        "the first page": printed(True, "nf4-dq", 2**30, {1: 0.002, 4: -0.003, 16: 0.004}),
        "the second page": printed(False, "nf4", 1e9, {1: 0.004, 2: -0.008, 4: 0.006}),
        "a page whose first peak is 3 % off": printed(True, "nf4-dq", 1e9, {1: -0.03, 4: 0.0, 16: 0.0}),
        "a page whose last peak is 1 % off": printed(True, "nf4", 1e9, {1: 0.0, 4: 0.0, 16: -0.011}),
        "a page of two peaks, one 2.5 % off": printed(True, "nf4", 1e9, {1: 0.0, 2: -0.025}),
        "a page whose peaks are all 1.1 % too low": printed(True, "nf4", 1e9, dict.fromkeys((1, 4, 16), -0.011)),
        "a page whose peaks are all 1.7 % too low": printed(True, "nf4", 1e9, dict.fromkeys((1, 4, 16), -0.017)),
    }


def _nearest(peaks: Peaks, error, among=EVERY):
    """Of some guesses the one whose errors, in parts of the printed peak, give the least `error`."""

    def of(guess) -> float:
        checkpointing, precision, unit = guess
        planned = {n: planned_bytes(n, checkpointing, precision) / unit for n in peaks}
        return error({n: planned[n] / peak - 1 for n, peak in peaks.items()})

    return dict(zip(NAMES, min(among, key=of), strict=True))


def by_the_first(peaks):
    return _nearest(peaks, lambda errors: abs(errors[min(errors)]))


def by_the_last(peaks):
    return _nearest(peaks, lambda errors: abs(errors[max(errors)]))


def by_the_best(peaks):
    return _nearest(peaks, lambda errors: min(map(abs, errors.values())))


def errors_added_up(peaks):
    return _nearest(peaks, lambda errors: sum(map(abs, errors.values())))


def signs_kept(peaks):
    return _nearest(peaks, lambda errors: abs(sum(errors.values())))


def in_gb(peaks):
    return _nearest(peaks, lambda errors: max(abs(peaks[n] * error) for n, error in errors.items()))


def always_decimal(peaks):
    return _nearest(peaks, lambda errors: max(map(abs, errors.values())), [g for g in EVERY if g[2] == 1e9])


def always_quantized_twice(peaks):
    return _nearest(peaks, lambda errors: max(map(abs, errors.values())), [g for g in EVERY if g[1] == "nf4-dq"])


def farthest(peaks):
    return _nearest(peaks, lambda errors: -max(map(abs, errors.values())))


def by_arrays(peaks):
    printed = np.array(list(peaks.values()))
    plans = np.array([[planned_bytes(n, *guess[:2]) / guess[2] for n in peaks] for guess in EVERY])
    return dict(zip(NAMES, EVERY[np.abs(plans / printed - 1).max(axis=1).argmin()], strict=True))


EXERCISE = Exercise(
    answer=unstated_settings,
    kind="find it",
    difficulty=3,
    minutes=12,
    cases=cases,
    given=(planned_bytes,),
    mistakes={
        by_the_first: "Wrong for {wrong} of {cases} pages: only the first peak was compared. At one micro-batch "
        "another unit can look like another precision.",
        by_the_last: "Wrong for {wrong} of {cases} pages: only the last peak was compared. At a large micro-batch the "
        "constants are too small a part to be seen.",
        by_the_best: "Wrong for {wrong} of {cases} pages: the smallest error of a guess was taken. One peak that fits "
        "proves little; the largest error says whether all do.",
        errors_added_up: "Wrong for {wrong} of {cases} pages: the errors were added up, or their mean taken. Asked for "
        "is the guess whose largest error is the smallest.",
        signs_kept: "Wrong for {wrong} of {cases} pages: errors of both signs cancel. Take their absolute values.",
        in_gb: "Wrong for {wrong} of {cases} pages: the errors were compared in GB, so the largest peak decides alone. "
        "Divide each by its peak.",
        always_decimal: "Wrong for {wrong} of {cases} pages: there the unit is 2^30 bytes, 7 % more than 10^9.",
        always_quantized_twice: "Wrong for {wrong} of {cases} pages: there the constants were not quantized again, and "
        "take half a bit for each weight.",
        farthest: "Wrong for {wrong} of {cases} pages: that is the guess whose plans are the farthest.",
    },
    hints=(
        "A guess is one of 2 x 2 x 2. For each of them: what would the page print at each micro-batch?",
        "`itertools.product` makes the eight guesses, and `min` with a `key` finds the one with the smallest of the "
        "largest errors, abs(plan / unit / printed - 1).",
    ),
    alternatives=(by_arrays,),
)
