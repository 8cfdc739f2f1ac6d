"""What are the ratings after a day of matches, whatever their order?

In Elo's system, each match changes the ratings at once, so that the order of the matches matters. Where a whole day of
matches is rated together, it does not: all expectations are computed from the ratings of the *morning*, and what each
player gained or lost is added up in the evening. (It is a step uphill on the likelihood that Bradley and Terry make as
large as possible. Many such days with the same verdicts and a small `k` end at their ratings.)

`ratings` has the ratings of the morning, by player. `matches` are tuples `(first, second, outcome)`, with the outcome
"first", "second" or "tie", which is half a win for each. Return the ratings of the evening, of all players. Those of
the morning have to stay as they are.
"""

import math
from collections import defaultdict

from course_utils.exercises.exercise import Exercise

Ratings = dict[str, float]
Matches = list[tuple[str, str, str]]
POINTS = {"first": 1.0, "tie": 0.5, "second": 0.0}


def after_a_day(ratings: dict[str, float], matches: list[tuple], k: float) -> dict[str, float]:
    """The ratings in the evening, with all matches rated by those of the morning."""
    evening = dict(ratings)
    for first, second, outcome in matches:
        expected = 1 / (1 + 10 ** ((ratings[second] - ratings[first]) / 400))
        gained = k * ({"first": 1, "tie": 0.5, "second": 0}[outcome] - expected)
        evening[first] += gained
        evening[second] -= gained
    return evening


def cases() -> dict[str, tuple[Ratings, Matches, float]]:
    three = {"Ann": 1100.0, "Bob": 1000.0, "Cleo": 900.0}
    round_robin = [("Ann", "Bob", "second"), ("Bob", "Cleo", "first"), ("Cleo", "Ann", "second")]
    return {
        "one win": (three, [("Cleo", "Ann", "first")], 32.0),
        "one tie": (three, [("Cleo", "Ann", "tie")], 32.0),
        "a player who plays three times": (three, [*round_robin, ("Ann", "Bob", "tie")], 16.0),
        "a win and a tie in a second order": (three, [("Bob", "Ann", "tie"), ("Ann", "Bob", "second")], 40.0),
    }


def _day(ratings: Ratings, matches: Matches, k: float, tie: float = 0.5, base: float = 10.0, sign: int = 1) -> Ratings:
    """A day with another worth of a tie, another base of the expectation, or the expectation of the other side."""
    evening = dict(ratings)
    for first, second, outcome in matches:
        expected = 1 / (1 + base ** (sign * (ratings[second] - ratings[first]) / 400))
        gained = k * ((tie if outcome == "tie" else POINTS[outcome]) - expected)
        evening[first] += gained
        evening[second] -= gained
    return evening


def one_after_another(ratings, matches, k):
    for match in matches:
        ratings = _day(ratings, [match], k)
    return dict(ratings)


def ties_left_out(ratings, matches, k):
    return _day(ratings, [match for match in matches if match[2] != "tie"], k)


def tie_is_a_loss(ratings, matches, k):
    return _day(ratings, matches, k, tie=0.0)


def k_shared_out(ratings, matches, k):
    return _day(ratings, matches, k / len(matches))


def expectation_of_the_other(ratings, matches, k):
    return _day(ratings, matches, k, sign=-1)


def base_e(ratings, matches, k):
    return _day(ratings, matches, k, base=math.e)


def equals_expected(ratings, matches, k):
    return _day(ratings, matches, k, sign=0)


def only_the_first(ratings, matches, k):
    evening = dict(ratings)
    for match in matches:
        evening[match[0]] += _day(ratings, [match], k)[match[0]] - ratings[match[0]]
    return evening


def against_the_mean_opponent(ratings, matches, k):
    scores, opponents = defaultdict(float), defaultdict(list)
    for first, second, outcome in matches:
        for player, other, score in ((first, second, POINTS[outcome]), (second, first, 1 - POINTS[outcome])):
            scores[player] += score
            opponents[player].append(ratings[other])
    evening = dict(ratings)
    for player, met in opponents.items():
        expected = 1 / (1 + 10 ** ((sum(met) / len(met) - ratings[player]) / 400))
        evening[player] += k * (scores[player] - len(met) * expected)
    return evening


def gains_alone(ratings, matches, k):
    return {player: after - ratings[player] for player, after in _day(ratings, matches, k).items()}


def player_by_player(ratings, matches, k):
    def of(player: str) -> float:
        rating = ratings[player]
        for first, second, outcome in matches:
            if player in (first, second):
                other = second if player == first else first
                score = {"tie": 0.5, "first": player == first, "second": player == second}[outcome]
                odds = 10 ** ((ratings[player] - ratings[other]) / 400)
                rating += k * (score - odds / (1 + odds))
        return rating

    return {player: of(player) for player in ratings}


EXERCISE = Exercise(
    answer=after_a_day,
    kind="write it",
    difficulty=1,
    minutes=8,
    cases=cases,
    mistakes={
        one_after_another: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: each match was "
        "rated with what the match before it left. All expectations are those of the morning.",
        ties_left_out: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: ties were left out. Who "
        "ties with somebody stronger gains.",
        tie_is_a_loss: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: a tie counts as a loss "
        "of the first. It is half a win for each.",
        k_shared_out: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: `k` was "
        "divided by the number of matches. Each match has its own k.",
        expectation_of_the_other: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: that is the "
        "expectation of the other side. The stronger one should expect more than half.",
        base_e: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: the expectation was computed "
        "with e. On Elo's scale 400 points are odds of ten to one.",
        equals_expected: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: everybody expects "
        "half, whatever the ratings.",
        only_the_first: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: what the first of a "
        "match gains, the second has to lose.",
        against_the_mean_opponent: "Wrong for {wrong} of {cases} days, {part} by {difference:+.2f} points: the "
        "expectation against the mean of all opponents is not the mean of the expectations.",
        gains_alone: "Wrong for {wrong} of {cases} days: these are the gains of the day, {yours:+.2f} for {part}. "
        "Asked for are the ratings.",
    },
    hints=(
        "Copy the ratings first. Which of the two do you read when you compute an expectation, which do you change?",
        "For each match: the expectation of the first from the ratings of the morning, `k` times (points minus "
        "expectation), added to the first and taken from the second in the copy.",
    ),
    alternatives=(player_by_player,),
)
