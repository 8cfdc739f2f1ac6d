"""What would a normal float of 3 bits be?

NF4 is a recipe, and 4 is a number in it. On its positive side are 8 quantiles of the normal distribution, on its
negative side 7, and there is a zero; all are divided by the largest. The outermost quantile of both sides is that of
929/960, halfway between 1 - 1/30 and 1 - 1/32. From there the probabilities go down to 1/2 in equal steps, and 1/2
itself, the zero, is left out.

The 30 is two times 15, the 32 two times 16. So the recipe holds for any number of bits. Write it. Before you run
anything: which three of the four levels of 2 bits do you know without computing?
"""

from statistics import NormalDist

import torch
from scipy import stats

from course_utils.exercises.exercise import Exercise


def normal_float(bits: int) -> torch.Tensor:
    """The 2**bits levels of a normal float, ascending from -1 to 1, in fp32."""
    half, quantile = 2 ** (bits - 1), NormalDist().inv_cdf
    reach = 0.5 - (1 / (4 * half - 2) + 1 / (4 * half)) / 2  # from the middle to the outermost probability
    negative = [-quantile(0.5 + reach * k / (half - 1)) for k in range(half - 1, 0, -1)]
    positive = [quantile(0.5 + reach * k / half) for k in range(1, half + 1)]
    levels = torch.tensor([*negative, 0.0, *positive])
    return levels / levels[-1]


def cases() -> dict[str, tuple[int]]:
    return {"3 bits": (3,), "4 bits": (4,), "2 bits": (2,)}


def _levels(left: int, right: int, outermost: float, zeros: int = 1) -> torch.Tensor:
    """So many quantiles on the left and right of zero, divided by the largest."""
    steps = [[0.5 + (outermost - 0.5) * k / n for k in range(1, n + 1)] for n in (left, right)]
    sides = [torch.tensor([NormalDist().inv_cdf(p) for p in side]) for side in steps]
    levels = torch.cat([-sides[0].flip(0), torch.zeros(zeros), sides[1]])
    return levels / levels.max()


def _outermost(bits: int) -> float:
    return 1 - (1 / (2 * (2**bits - 1)) + 1 / (2 * 2**bits)) / 2


def tail_of_4_bits(bits):
    return _levels(2 ** (bits - 1) - 1, 2 ** (bits - 1), 929 / 960)


def no_zero(bits):
    return _levels(2 ** (bits - 1), 2 ** (bits - 1), _outermost(bits), zeros=0)


def both_sides_alike(bits):
    return _levels(2 ** (bits - 1) - 1, 2 ** (bits - 1) - 1, _outermost(bits))


def halves_kept(bits):
    return _levels(2 ** (bits - 1) - 1, 2 ** (bits - 1), _outermost(bits), zeros=3)


def turned_around(bits):
    return _levels(2 ** (bits - 1), 2 ** (bits - 1) - 1, _outermost(bits))


def not_divided(bits):
    return normal_float(bits) * NormalDist().inv_cdf(_outermost(bits))


def even_steps(bits):
    half = 2 ** (bits - 1)
    return torch.cat([torch.arange(1 - half, 0) / (half - 1), torch.arange(half + 1) / half])


def by_scipy(bits):
    half, outermost = 2 ** (bits - 1), _outermost(bits)
    sides = [stats.norm.ppf(torch.linspace(outermost, 0.5, n + 1)[:-1].double()) for n in (half - 1, half)]
    values = torch.tensor([*-sides[0], 0.0, *sides[1]]).sort().values
    return (values / values.max()).float()


EXERCISE = Exercise(
    answer=normal_float,
    kind="write it",
    difficulty=1,
    minutes=10,
    cases=cases,
    mistakes={
        tail_of_4_bits: "Right for 4 bits alone, wrong for {wrong} of {cases} widths, and there off by {off:.1f} %: "
        "929/960 belongs to 4 bits. With fewer levels the outermost ones lie less far out.",
        no_zero: "There is no zero among your levels, for none of the {cases} widths. Padding and pruned weights are "
        "zeros and have to stay so: it takes one level, from the negative side.",
        both_sides_alike: "{yours.shape[0]} levels instead of {expected.shape[0]}: with a zero an odd number is left "
        "for two sides. The positive one has one more.",
        halves_kept: "{yours.shape[0]} levels instead of {expected.shape[0]}: the probability 1/2 is still among the "
        "quantiles of each side. It is the zero, which is there already.",
        turned_around: "Off by {off:.0f} %: the negative side has one level more than the positive one. In NF4 it is "
        "the other way round.",
        not_divided: "All levels are {ratio:.3f} times what they should be: they are not divided by the largest.",
        even_steps: "Off by {off:.0f} %: the levels have equal distances. Equal are the steps of the probability; the "
        "levels are its quantiles.",
    },
    hints=(
        "What of the recipe depends on the number of bits? The 7 and the 8, and the 15 and the 16.",
        "With h = 2 ** (bits - 1): the sides have h - 1 and h quantiles, and the outermost probability is halfway "
        "between 1 - 1 / (2 * (2 * h - 1)) and 1 - 1 / (4 * h). `NormalDist().inv_cdf(p)` is a quantile; those of the "
        "negative side get a minus.",
    ),
    alternatives=(by_scipy,),
)
