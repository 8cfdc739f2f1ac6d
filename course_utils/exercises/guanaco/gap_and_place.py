"""How much is the first place worth, and how far apart are two models without it?

A judge who prefers what it sees first hides how far apart two answers are. But a pair that was shown in both orders
has two shares of points, a tie being half a point for each. Let one number stand for the gap between the models and one
for the first place, both in points on Elo's scale, where 400 points are odds of ten to one. When `a` is shown first, it
has the gap *and* the place on its side; when it is shown second, the gap is on its side and the place on the other's.

You get the verdicts that were given with `a` shown first and those with `b` shown first: two dicts that say how often
`"a"` won, `"b"` won, and how often it was a `"tie"`. Return a dict with `gap` (above zero if `a` is the stronger one)
and `place` (above zero if it helps to be shown first). Then use it: `gap_and_place(*said("Guanaco-65B",
"ChatGPT-3.5"))`. Which of the two is larger?
"""

import math

import numpy as np

from course_utils import tournament
from course_utils.exercises.exercise import Exercise

Said = dict[str, int]


def said(a: str, b: str) -> list[dict[str, int]]:
    """How often GPT-4 named a, b or a tie on 80 prompts: with a shown first, and with b shown first."""
    verdicts, counts = tournament.published(), []
    for first, second in ((a, b), (b, a)):
        rows = verdicts[(verdicts["first"] == first) & (verdicts["second"] == second)]
        names = {"first": "a" if first == a else "b", "second": "a" if second == a else "b", "tie": "tie"}
        counts.append({name: int((rows["winner"] == place).sum()) for place, name in names.items()})
    return counts


def gap_and_place(a_first: dict[str, int], b_first: dict[str, int]) -> dict[str, float]:
    """The gap between a and b, and what the first place is worth, in points."""
    odds = [(each["a"] + each["tie"] / 2) / (each["b"] + each["tie"] / 2) for each in (a_first, b_first)]
    ahead, behind = (400 * math.log10(one) for one in odds)
    return {"gap": (ahead + behind) / 2, "place": (ahead - behind) / 2}


def cases() -> dict[str, tuple[Said, Said]]:
    return {
        "nearly equal models": ({"a": 61, "tie": 0, "b": 19}, {"a": 21, "tie": 0, "b": 59}),
        "a judge who hardly minds": ({"a": 61, "tie": 0, "b": 19}, {"a": 59, "tie": 0, "b": 21}),
        "with ties": ({"a": 50, "tie": 20, "b": 10}, {"a": 24, "tie": 30, "b": 26}),
        "orders that were not judged equally often": ({"a": 70, "tie": 4, "b": 6}, {"a": 8, "tie": 2, "b": 10}),
        "Guanaco-65B and ChatGPT-3.5, as published": tuple(said("Guanaco-65B", "ChatGPT-3.5")),
    }


def _points(share: float) -> float:
    return 400 * math.log10(share / (1 - share))


def _shares(a_first: Said, b_first: Said, tie: float = 0.5) -> list[float]:
    """The share of points of a when it is shown first, and when second."""
    return [(each["a"] + tie * each["tie"]) / sum(each.values()) for each in (a_first, b_first)]


def _both(ahead: float, behind: float) -> dict[str, float]:
    return {"gap": (ahead + behind) / 2, "place": (ahead - behind) / 2}


def pooled(a_first, b_first):
    total = {name: a_first[name] + b_first[name] for name in a_first}
    gap = _points(_shares(total, total)[0])
    return {"gap": gap, "place": _points(_shares(a_first, b_first)[0]) - gap}


def mean_of_shares(a_first, b_first):
    first, second = _shares(a_first, b_first)
    gap = _points((first + second) / 2)
    return {"gap": gap, "place": _points((first + 1 - second) / 2)}


def not_halved(a_first, b_first):
    return {name: 2 * value for name, value in gap_and_place(a_first, b_first).items()}


def exchanged(a_first, b_first):
    found = gap_and_place(a_first, b_first)
    return {"gap": found["place"], "place": found["gap"]}


def the_second_place(a_first, b_first):
    found = gap_and_place(a_first, b_first)
    return {"gap": found["gap"], "place": -found["place"]}


def ties_left_out(a_first, b_first):
    return gap_and_place(*({**each, "tie": 0} for each in (a_first, b_first)))


def ties_lost(a_first, b_first):
    return _both(*(_points(share) for share in _shares(a_first, b_first, tie=0.0)))


def in_nats(a_first, b_first):
    return {name: value * math.log(10) / 400 for name, value in gap_and_place(a_first, b_first).items()}


def natural_logarithm(a_first, b_first):
    return {name: value * math.log(10) for name, value in gap_and_place(a_first, b_first).items()}


def with_a_first_alone(a_first, b_first):
    return {**gap_and_place(a_first, b_first), "gap": _points(_shares(a_first, b_first)[0])}


def by_equations(a_first, b_first):
    shares = np.array(_shares(a_first, b_first))
    gap, place = np.linalg.solve([[1, 1], [1, -1]], 400 * np.log10(shares / (1 - shares)))
    return {"gap": float(gap), "place": float(place)}


EXERCISE = Exercise(
    answer=gap_and_place,
    kind="write it",
    difficulty=2,
    minutes=10,
    cases=cases,
    given=(said,),
    mistakes={
        pooled: "{part}: {yours:.0f} points instead of {expected:.0f}. The verdicts of both orders were thrown "
        "together first. Turn each share into points, and average those.",
        mean_of_shares: "{part}: {yours:.0f} points instead of {expected:.0f}. The mean was taken of the shares, "
        "which a strong place draws towards one half. Turn each share into points first.",
        not_halved: "{part}: {yours:.0f} points instead of {expected:.0f}. In the sum of the two lies twice the gap, "
        "in their difference twice the place.",
        exchanged: "{part}: {yours:.0f} points instead of {expected:.0f}. Gap and place have changed names: was the "
        "second share that of `b`? Both have to be those of `a`.",
        the_second_place: "{part}: {yours:.0f} points instead of {expected:.0f}. That is what the second place is "
        "worth.",
        ties_left_out: "{part}: {yours:.0f} points instead of {expected:.0f}. The ties are left out, which makes "
        "models look further apart than they are.",
        ties_lost: "{part}: {yours:.0f} points instead of {expected:.0f}. Ties count as lost for `a`. They are half a "
        "point for each.",
        in_nats: "{part}: {yours:.2f} instead of {expected:.0f}. That is the logarithm of the odds. 400 points are "
        "odds of ten to one.",
        natural_logarithm: "{part}: {yours:.0f} points instead of {expected:.0f}, {ratio:.1f} times. 400 points are "
        "odds of *ten* to one: the logarithm is to the base 10.",
        with_a_first_alone: "{part}: {yours:.0f} points instead of {expected:.0f}. With `a` shown first the place "
        "helps it; only both orders together show the gap.",
    },
    hints=(
        "With `a` first, the odds of its points give gap + place; with `b` first, those of `a` give gap - place. Two "
        "equations, two unknowns.",
        "The odds of `a` are its points over those of `b`; in points on the scale, 400 times their `math.log10`. Half "
        "the sum of the two is the gap, half the difference the place.",
    ),
    alternatives=(by_equations,),
)
