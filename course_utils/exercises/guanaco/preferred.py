"""Which of two models does the judge prefer, if its verdicts on the two orders have to agree?

GPT-4 named the first answer far more often than the second. A rule that such a judge cannot fool, and that is written
down before the numbers: a prompt counts for a model only if the judge names that model in *both* orders. All other
prompts say nothing: ties, verdicts that nobody could read (`"unparsed"`), and verdicts that change when the answers are
swapped. Of the prompts that count, were both models equal, each would win half. If the chance of a result at least as
uneven, in either direction, is below 5 % (`stats.binomtest`), the one with more of them is preferred, and otherwise it
is not decided. Where no prompt counts, it is not decided either.

`orders` has a row for each prompt: the two models `a` and `b`, and who won when that one was shown first (`a_first`,
`b_first`): a model's name, "tie" or "unparsed". Return the name of the preferred model, or "not decided". Then use it:
`preferred(pair("Guanaco-65B", "ChatGPT-3.5"))`. Of the 28 pairs among the eight models, how many are decided?
"""

import functools
import math
from collections.abc import Callable

import pandas as pd
from scipy import stats

from course_utils import tournament
from course_utils.exercises.exercise import Exercise


def pair(one: str, other: str) -> pd.DataFrame:
    """What GPT-4 said of two models' answers to 80 prompts, in both orders."""
    verdicts = tournament.published()
    return tournament.both_orders(
        verdicts[verdicts["first"].isin([one, other]) & verdicts["second"].isin([one, other])]
    )


def preferred(orders: pd.DataFrame) -> str:
    """The model that the judge prefers in both orders, by an exact test at 5 %, or "not decided"."""
    agreed = orders[orders["a_first"] == orders["b_first"]]
    won = {name: int((agreed["a_first"] == name).sum()) for name in (orders["a"].iloc[0], orders["b"].iloc[0])}
    counted = sum(won.values())
    if not counted or stats.binomtest(max(won.values()), counted).pvalue >= 0.05:
        return "not decided"
    return max(won, key=won.get)


@functools.cache
def cases() -> dict[str, tuple[pd.DataFrame]]:
    def said(
        both_a=0, both_b=0, first=0, ties=0, a_and_tie=0, tie_and_b=0, unparsed=0, a_alone=0
    ) -> tuple[pd.DataFrame]:
        """So many prompts on which the two verdicts were these; `first`: whoever was shown first won."""
        rows = both_a * [("A", "A")] + both_b * [("B", "B")] + first * [("A", "B")] + ties * [("tie", "tie")]
        rows += a_and_tie * [("A", "tie")] + tie_and_b * [("tie", "B")] + unparsed * [("unparsed", "unparsed")]
        rows += a_alone * [("A", "unparsed")]
        table = pd.DataFrame(rows, columns=["a_first", "b_first"])
        return (table.assign(prompt=table.index.astype(str), a="A", b="B")[["prompt", "a", "b", "a_first", "b_first"]],)

    return {
        "14 against 3 prompts": said(both_a=14, both_b=3, first=2, ties=3),
        "2 against 15 prompts": said(both_a=2, both_b=15, first=20, unparsed=4),
        "15 against 5 prompts": said(both_a=15, both_b=5),
        "13 against 4 prompts": said(both_a=13, both_b=4),
        "6 against 2 prompts, and wins beside what nobody could read": said(both_a=6, both_b=2, a_alone=12),
        "13 against 5 prompts": said(both_a=13, both_b=5, first=9),
        "7 against 1 prompts": said(both_a=7, both_b=1),
        "10 against 1 prompts, and many that change": said(both_a=10, both_b=1, first=40),
        "10 against 1 prompts, and many ties": said(both_a=10, both_b=1, ties=20),
        "10 against 1 prompts, and some that nobody could read": said(both_a=10, both_b=1, unparsed=12),
        "a judge that names the first place alone": said(first=40),
        "6 against 5 prompts, and many that change": said(both_a=6, both_b=5, first=30),
        "4 against 3 prompts, and many ties": said(both_a=4, both_b=3, ties=30),
        "5 against 1 prompts, and wins beside ties": said(both_a=5, both_b=1, a_and_tie=12, tie_and_b=1),
        "Guanaco-65B and ChatGPT-3.5, as published": (pair("Guanaco-65B", "ChatGPT-3.5"),),
        "Guanaco-65B and Bard, as published": (pair("Guanaco-65B", "Bard"),),
    }


def outcome(answer: Callable[[pd.DataFrame], str], orders: pd.DataFrame) -> str:
    """What is said of a copy of the table, to which columns may be added."""
    return answer(orders.copy())


def _counts(orders: pd.DataFrame) -> tuple[str, str, dict[str, int]]:
    """The two models, and on how many prompts both orders said the same: each of them, tie, unparsed."""
    agreed = orders[orders["a_first"] == orders["b_first"]]["a_first"].value_counts().to_dict()
    return orders["a"].iloc[0], orders["b"].iloc[0], agreed


def _decided(a: str, b: str, for_a: float, for_b: float, counted: int | None = None, sides: float = 1.0) -> str:
    """Who is preferred by so many wins; `sides`: what the chance of both sides is multiplied with."""
    counted = int(for_a + for_b) if counted is None else counted
    if not counted or stats.binomtest(int(max(for_a, for_b)), counted).pvalue * sides >= 0.05:
        return "not decided"
    return a if for_a >= for_b else b


def each_verdict(orders):
    a, b, _ = _counts(orders)
    every = [*orders["a_first"], *orders["b_first"]]
    return _decided(a, b, every.count(a), every.count(b))


def one_order_alone(orders):
    a, b, _ = _counts(orders)
    return _decided(a, b, list(orders["a_first"]).count(a), list(orders["a_first"]).count(b))


def all_prompts_counted(orders):
    a, b, agreed = _counts(orders)
    return _decided(a, b, agreed.get(a, 0), agreed.get(b, 0), len(orders))


def ties_counted(orders):
    a, b, agreed = _counts(orders)
    return _decided(a, b, agreed.get(a, 0), agreed.get(b, 0), sum(agreed.values()))


def ties_shared(orders):
    a, b, agreed = _counts(orders)
    ties = agreed.get("tie", 0)
    return _decided(a, b, agreed.get(a, 0) + ties // 2, agreed.get(b, 0) + ties - ties // 2)


def unparsed_counted(orders):
    a, b, agreed = _counts(orders)
    return _decided(a, b, agreed.get(a, 0), agreed.get(b, 0), sum(agreed.values()) - agreed.get("tie", 0))


def doubled(orders):
    a, b, agreed = _counts(orders)
    return _decided(a, b, agreed.get(a, 0), agreed.get(b, 0), sides=2.0)


def one_direction(orders):
    a, b, agreed = _counts(orders)
    return _decided(a, b, agreed.get(a, 0), agreed.get(b, 0), sides=0.5)


def whoever_wins_more(orders):
    a, b, agreed = _counts(orders)
    return _decided(a, b, agreed.get(a, 0), agreed.get(b, 0), sides=0.0)


def changed_verdicts_shared(orders):
    a, b, agreed = _counts(orders)
    changed = orders["a_first"].isin([a, b]) & orders["b_first"].isin([a, b]) & (orders["a_first"] != orders["b_first"])
    return _decided(a, b, agreed.get(a, 0) + changed.sum() // 2, agreed.get(b, 0) + changed.sum() - changed.sum() // 2)


def _win_beside(orders: pd.DataFrame, word: str) -> str:
    """Who is preferred, if a win beside that word counts like one in both orders."""
    a, b, _ = _counts(orders)
    both = [set(row) - {word} for row in orders[["a_first", "b_first"]].to_numpy().tolist()]
    return _decided(a, b, both.count({a}), both.count({b}))


def win_beside_a_tie(orders):
    return _win_beside(orders, "tie")


def win_beside_unparsed(orders):
    return _win_beside(orders, "unparsed")


def no_prompt_forgotten(orders):
    a, b, agreed = _counts(orders)
    for_a, for_b = agreed.get(a, 0), agreed.get(b, 0)
    chance = stats.binomtest(for_a, for_a + for_b).pvalue
    return "not decided" if chance >= 0.05 else a if for_a > for_b else b


def the_other_one(orders):
    a, b, _ = _counts(orders)
    return {a: b, b: a}.get(preferred(orders), "not decided")


def by_adding_up(orders):
    a, b, agreed = _counts(orders)
    for_a, for_b = agreed.get(a, 0), agreed.get(b, 0)
    n = for_a + for_b
    tail = 2 * sum(math.comb(n, k) for k in range(max(for_a, for_b), n + 1)) / 2**n
    return "not decided" if tail >= 0.05 else a if for_a > for_b else b


EXERCISE = Exercise(
    answer=preferred,
    kind="judge it",
    difficulty=2,
    minutes=12,
    cases=cases,
    outcome=outcome,
    given=(pair,),
    mistakes={
        each_verdict: "Wrong for {wrong} of {cases} tables: single verdicts were counted, two for each prompt. The "
        "second is hardly evidence of its own, and what changes counts on both sides.",
        one_order_alone: "Wrong for {wrong} of {cases} tables: only the verdicts with `a` shown first were counted. "
        "This judge likes whatever comes first.",
        all_prompts_counted: "Wrong for {wrong} of {cases} tables: the wins were held against all prompts. Only those "
        "that name one model twice count; the others say nothing.",
        ties_counted: "Wrong for {wrong} of {cases} tables: the wins were held against all prompts on which both "
        "verdicts agree, ties among them. A tie says nothing here.",
        ties_shared: "Wrong for {wrong} of {cases} tables: ties were shared out, half to each. They say nothing, and "
        "only hide what the others say.",
        unparsed_counted: "Wrong for {wrong} of {cases} tables: the wins were held against the prompts that nobody "
        "could read as well. `unparsed` is no model's name.",
        doubled: "Wrong for {wrong} of {cases} tables: the level is stricter than 5 %, or the chance was doubled. "
        "That of `stats.binomtest` holds both directions already.",
        one_direction: "Wrong for {wrong} of {cases} tables: up to 10 % in both directions were enough. That is the "
        "level, or it is the chance in one direction: before the numbers, nobody knew which it would be.",
        whoever_wins_more: "Wrong for {wrong} of {cases} tables: the one with more prompts was named, however few "
        "there are.",
        changed_verdicts_shared: "Wrong for {wrong} of {cases} tables: prompts with a changed verdict were shared out, "
        "half to each. They say nothing, and only hide what the others say.",
        win_beside_a_tie: "Wrong for {wrong} of {cases} tables: a win in one order and a tie in the other was counted "
        "as a win. The rule asks for the name in both.",
        win_beside_unparsed: "Wrong for {wrong} of {cases} tables: a win in one order, where nobody could read the "
        "other, was counted as a win. The rule asks for the name in both.",
        no_prompt_forgotten: "Wrong for {wrong} of {cases} tables: there no prompt counts, and a test of nothing "
        "stops with an error: {error}.",
        the_other_one: "Wrong for {wrong} of {cases} tables: that is the model with fewer prompts.",
    },
    hints=(
        "Keep the prompts on which `a_first` equals `b_first`. On which of these do the two columns hold the name of "
        "a model?",
        "Two counts come out, one for each model. `stats.binomtest(k, n).pvalue` takes the count of one of them, and "
        "the sum of both; it needs n of 1 or more to mean anything.",
    ),
    alternatives=(by_adding_up,),
)
