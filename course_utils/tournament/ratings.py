"""How strong is each model, by the matches it won? Elo over many orders, Bradley-Terry, and what chance does to them.

All ratings are on Elo's scale: 400 points more make the odds of winning ten to one. A tie is half a win for each side.
Verdicts that could not be parsed are left out, and counted on stderr.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

SCORES = {"first": 1.0, "tie": 0.5, "second": 0.0}  # of the model shown first
SCALE = 400 / np.log(10)  # Elo points for one unit of log odds
MEAN = 1000.0  # where ratings start, and what their mean is
BLOCK = 5000  # orders that are gone through at once, each block in a thread; fixed, so that no result depends on cores
CHUNK = 250  # orders that are shuffled at once: what a core's cache holds


def elo(matches: pd.DataFrame, k: float = 4.0, orderings: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Elo ratings after all matches, for many random orders of them: one row an order, one column a model.

    Everybody starts at 1000; after each match its winner takes k x (1 - expected score) points from the loser (Elo
    1978, as in the QLoRA paper, section 5.2). All orders are gone through at the same time, match by match.

    Args:
        matches: a table as `verdicts.published` returns it.
        k: points at stake in a match.

    Raises:
        ValueError: there is no match, an outcome is unknown, or `orderings` or `k` is not above zero.
    """
    if not (k > 0 and orderings > 0):
        raise ValueError(f"k is {k} and orderings is {orderings}; both have to be above zero.")
    models, first, second, score = _parsed(matches)
    sizes = [min(BLOCK, orderings - start) for start in range(0, orderings, BLOCK)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    kinds, kind_of = np.unique(np.stack([first, second, 2 * score], axis=1).astype(int), axis=0, return_inverse=True)

    def play(size: int, own_seed: np.random.SeedSequence) -> np.ndarray:
        order = _shuffled(kind_of.ravel(), size, np.random.default_rng(own_seed))
        return _played(order, kinds, len(models), k)

    with ThreadPoolExecutor() as pool:  # numpy lets go of the interpreter's lock
        blocks = list(pool.map(play, sizes, seeds))
    return pd.DataFrame(MEAN + np.concatenate(blocks).astype(float), columns=models)


def _shuffled(kind_of: np.ndarray, orderings: int, rng: np.random.Generator) -> np.ndarray:
    """The kinds of the matches in random orders, of shape (matches, orderings).

    Random numbers whose last bits say the kind are sorted, which takes a third of the time of shuffling. Two matches
    come in the order of their kinds, not by chance, only if all other bits (24 with eight models) agree.
    """
    bits = int(kind_of.max()).bit_length()
    mask, kind_of = np.uint32(2**bits - 1), kind_of.astype(np.uint32)
    order = np.empty((len(kind_of), orderings), dtype=np.uint16)
    for start in range(0, orderings, CHUNK):
        keys = rng.integers(2**32, size=(min(CHUNK, orderings - start), len(kind_of)), dtype=np.uint32)
        keys &= ~mask
        keys |= kind_of
        keys.sort(axis=1)
        order[:, start : start + CHUNK] = (keys & mask).T
    return order


def _played(order: np.ndarray, kinds: np.ndarray, count: int, k: float) -> np.ndarray:
    """Points above the start after all matches, of shape (orderings, models)."""
    first, second, outcome = np.ascontiguousarray(kinds.T)
    points, k = (k * outcome / 2).astype(np.float32), np.float32(k)
    ratings = np.zeros(order.shape[1] * count, dtype=np.float32)
    row = np.arange(order.shape[1]) * count  # where the ratings of each order begin
    for kind in order:  # in place, which saves a fifth of the time
        kind = kind.astype(np.intp)
        at_first, at_second = first[kind], second[kind]
        at_first += row
        at_second += row
        ours, theirs = ratings.take(at_first, mode="clip"), ratings.take(at_second, mode="clip")
        chance = theirs - ours
        chance *= np.float32(1 / SCALE)
        np.exp(chance, out=chance)
        chance += 1
        gained = points[kind]
        gained -= np.divide(k, chance, out=chance)
        ours += gained
        theirs -= gained
        ratings[at_first], ratings[at_second] = ours, theirs
    return ratings.reshape(-1, count)


def bradley_terry(matches: pd.DataFrame) -> pd.Series:
    """Ratings that make the verdicts most likely (Bradley and Terry 1952), by model; their mean is 1000.

    Unlike Elo's they depend on no order and no k.

    Raises:
        ValueError: there is no match, or no finite rating fits, because somebody only won or only lost; names who.
    """
    models, first, second, score = _parsed(matches)
    wins = np.zeros((len(models), len(models)))
    _add_points(wins, (first, second), score)
    return pd.Series(_fitted(wins[None], models)[0], models)


def bootstrap(
    matches: pd.DataFrame, *, within_pairs: bool = False, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Bradley-Terry ratings of resampled prompts: one row a resample, one column a model.

    What is drawn, with replacement, is a prompt with all verdicts on it, because they are no independent evidence: the
    same answers in both orders, and the same prompt for all pairs (Miller 2024, arXiv 2411.00640).

    Args:
        within_pairs: draw the prompts of each pair by themselves, where nobody knows which of them are those of
            another pair (`verdicts.published`). Intervals are then too narrow.

    Raises:
        ValueError: as `bradley_terry`, of any resample.
    """
    models, first, second, score = _parsed(matches)
    prompts = pd.factorize(matches["prompt"][matches["winner"].isin(SCORES)])[0]
    pairs = np.minimum(first, second) * len(models) + np.maximum(first, second)
    together = pd.DataFrame({"stratum": pairs if within_pairs else 0 * pairs, "prompt": prompts})
    unit = together.groupby(["stratum", "prompt"]).ngroup().to_numpy()  # numbered stratum by stratum
    sizes = together.drop_duplicates().groupby("stratum").size()
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.multinomial(size, np.full(size, 1 / size), resamples) for size in sizes], axis=1)
    wins = np.zeros((drawn.shape[1], len(models), len(models)))
    _add_points(wins, (unit, first, second), score)
    resampled = (drawn @ wins.reshape(len(wins), -1)).reshape(-1, len(models), len(models))
    return pd.DataFrame(_fitted(resampled, models), columns=models)


def _add_points(wins: np.ndarray, at: tuple[np.ndarray, ...], score: np.ndarray) -> None:
    """To `wins`, whose last two axes are winner and loser, the points of both sides of each match."""
    *unit, first, second = at
    np.add.at(wins, (*unit, first, second), score)
    np.add.at(wins, (*unit, second, first), 1 - score)


def _fitted(wins: np.ndarray, models: list[str]) -> np.ndarray:
    """Ratings, of shape (tables, models), of tables of points (tables, winner, loser), by Newton's method."""
    for table in wins:
        _check_comparable(table, models)
    games, theta = wins + wins.swapaxes(1, 2), np.zeros(wins.shape[:2])
    for _ in range(100):
        chance = 1 / (1 + np.exp(theta[:, None, :] - theta[:, :, None]))  # that the row's model wins
        slope = (wins - games * chance).sum(axis=2)
        weight = games * chance * (1 - chance)
        curvature = np.eye(len(models)) * weight.sum(axis=2)[:, None, :] - weight
        step = np.linalg.solve(curvature + 1, slope[:, :, None])[:, :, 0]  # + 1 keeps the mean where it is
        theta += step.clip(-2, 2)
        if abs(step).max() < 1e-9:
            break
    return MEAN + SCALE * (theta - theta.mean(axis=1, keepdims=True))


def _check_comparable(wins: np.ndarray, models: list[str]) -> None:
    """Finite ratings fit exactly if points lead from each model to each other one (Ford 1957)."""
    count, part = connected_components(wins > 0, connection="strong")
    if count > 1:
        apart = [model for model, own in zip(models, part, strict=True) if own == np.bincount(part).argmin()]
        raise ValueError(
            f"No finite rating fits: against the others, {', '.join(apart)} only won, only lost, or never played, here "
            "or in a resample. Judge more prompts, leave them out, or take elo, which is always finite."
        )


def _parsed(matches: pd.DataFrame) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """The models, and of each match with a winner or a tie: first and second as numbers, and the score of the first."""
    parsed = matches[matches["winner"] != "unparsed"]
    score = parsed["winner"].map(SCORES)
    if unknown := sorted(set(parsed["winner"][score.isna()])):
        raise ValueError(f"Unknown winner {unknown[0]!r}; it has to be one of {', '.join(SCORES)}, unparsed.")
    if parsed.empty:
        raise ValueError("There is no match with a verdict. Judge some first, or look at how they were chosen.")
    if left_out := len(matches) - len(parsed):
        print(f"{left_out} of {len(matches)} verdicts could not be parsed, and are left out.", file=sys.stderr)
    both, models = pd.factorize(pd.concat([parsed["first"], parsed["second"]]))
    first, second = both[: len(parsed)], both[len(parsed) :]
    return list(models), first, second, score.to_numpy(dtype=float)
