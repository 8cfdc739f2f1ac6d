"""What will a biased judge say, if it is asked in both orders?

Take a judge of whom you know two chances. With the chance `bias` it does not look at all and names the answer that
comes first. Otherwise it looks, and names the better answer with the chance `hit`. It has no memory: asked again with
the answers swapped, it looks, or does not, anew. There are no ties.

Predict three shares, as a dict: `"right"`, of all verdicts in both orders those that name the better answer;
`"changed"`, of all pairs of answers those of which another answer wins when they are swapped; and `"right if kept"`, of
the pairs whose verdict does *not* change those whose verdict is right. (Try it with 0.8 and 0.3. What does keeping only
unchanged verdicts buy, and at which price? Does a bias alone move the share of right verdicts below one half?)
"""

import itertools

from course_utils.exercises.exercise import Exercise


def both_orders_asked(hit: float, bias: float) -> dict[str, float]:
    """The shares that are right, that change, and that are right among those that do not."""
    first, second = bias + (1 - bias) * hit, (1 - bias) * hit  # that the better one wins, in this place
    right_twice, wrong_twice = first * second, (1 - first) * (1 - second)
    kept = right_twice + wrong_twice
    return {"right": (first + second) / 2, "changed": 1 - kept, "right if kept": right_twice / kept}


def cases() -> dict[str, tuple[float, float]]:
    return {
        "hits 0.8, bias 0.3": (0.8, 0.3),
        "hits 0.9, no bias": (0.9, 0.0),
        "a coin that prefers the first": (0.5, 0.6),
        "hits always, bias 0.4": (1.0, 0.4),
    }


def _shares(first: float, second: float, **other: float) -> dict[str, float]:
    """The shares, from the chances of the better one in both places; and what a mistake has otherwise."""
    kept = first * second + (1 - first) * (1 - second)
    return {"right": (first + second) / 2, "changed": 1 - kept, "right if kept": first * second / kept} | other


def _places(hit: float, bias: float) -> tuple[float, float]:
    return bias + (1 - bias) * hit, (1 - bias) * hit


def change_by_bias_alone(hit, bias):
    return _shares(*_places(hit, bias), changed=bias)


def bias_on_top(hit, bias):
    return _shares(min(1.0, hit + bias), max(0.0, hit - bias))


def first_place_alone(hit, bias):
    first, second = _places(hit, bias)
    return _shares(first, second, right=first)


def hits_alone(hit, bias):
    return _shares(*_places(hit, bias), right=hit)


def bias_never_hits(hit, bias):
    return _shares((1 - bias) * hit, (1 - bias) * hit)


def of_all_pairs(hit, bias):
    first, second = _places(hit, bias)
    return _shares(first, second) | {"right if kept": first * second}


def kept_as_right_as_all(hit, bias):
    first, second = _places(hit, bias)
    return _shares(first, second) | {"right if kept": (first + second) / 2}


def unchanged_instead(hit, bias):
    found = both_orders_asked(hit, bias)
    return found | {"changed": 1 - found["changed"]}


def one_way_of_changing(hit, bias):
    first, second = _places(hit, bias)
    return _shares(first, second, changed=first * (1 - second))


def one_look_for_both(hit, bias):
    looked = 1 - bias
    return _shares(*_places(hit, bias), changed=bias) | {"right if kept": looked * hit / looked}


def by_listing(hit, bias):
    shares = {"right": 0.0, "changed": 0.0, "kept and right": 0.0}
    for looks in itertools.product((True, False), repeat=2):
        for sees in itertools.product((True, False), repeat=2):
            chance, named = 1.0, []  # whether the better one is named, shown first and shown second
            for shown_first, looked, saw in zip((True, False), looks, sees, strict=True):
                chance *= (1 - bias if looked else bias) * (hit if saw else 1 - hit)
                named.append(saw if looked else shown_first)
            shares["right"] += chance * sum(named) / 2
            shares["changed"] += chance * (named[0] != named[1])
            shares["kept and right"] += chance * all(named)
    return {
        "right": shares["right"],
        "changed": shares["changed"],
        "right if kept": shares["kept and right"] / (1 - shares["changed"]),
    }


EXERCISE = Exercise(
    answer=both_orders_asked,
    kind="predict it",
    difficulty=2,
    minutes=10,
    cases=cases,
    mistakes={
        change_by_bias_alone: "{part}: {yours:.3f} instead of {expected:.3f}. Who looks can err once and not again, so "
        "verdicts change without a bias, too; and who does not look can happen to repeat himself.",
        bias_on_top: "{part}: {yours:.3f} instead of {expected:.3f}. The bias was added to the hits. It is the chance "
        "of not looking: `hit` holds for the rest, 1 - bias.",
        first_place_alone: "{part}: {yours:.3f} instead of {expected:.3f}. That is the share when the better one is "
        "shown first. In half of the verdicts it is shown second.",
        hits_alone: "{part}: {yours:.3f} instead of {expected:.3f}. `hit` is the share among verdicts for which it "
        "looked.",
        bias_never_hits: "{part}: {yours:.3f} instead of {expected:.3f}. Not looking names the first place, and there "
        "stands the better one in half of the verdicts.",
        of_all_pairs: "{part}: {yours:.3f} instead of {expected:.3f}. That is the share of *all* pairs that are right "
        "twice. Of those that do not change it is a larger one.",
        kept_as_right_as_all: "{part}: {yours:.3f} instead of {expected:.3f}. Verdicts that do not change are more "
        "often right than others: to err twice is rarer than to err once.",
        unchanged_instead: "{part}: {yours:.3f} instead of {expected:.3f}. That is the share that does *not* change.",
        one_way_of_changing: "{part}: {yours:.3f} instead of {expected:.3f}. A verdict also changes if the better one "
        "wins only where it is shown second.",
        one_look_for_both: "Wrong for {wrong} of {cases} judges, {part}: {yours:.3f} instead of {expected:.3f}. It "
        "looks, or does not, anew for each order, and errs anew.",
    },
    hints=(
        "Two chances are all you need: that the better answer wins when it is shown first, and when it is shown "
        "second. How does not looking change each of them?",
        "p = bias + (1 - bias) hit, q = (1 - bias) hit. The two orders are independent: right twice with the chance "
        "p q, wrong twice with (1 - p) (1 - q), and otherwise the verdict changes.",
    ),
    alternatives=(by_listing,),
)
