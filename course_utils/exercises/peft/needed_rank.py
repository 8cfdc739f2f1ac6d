"""What rank does a sum of adapters need?

`cat` adds updates up exactly, and the ranks with them: three adapters of rank 8 gave one of rank 24. `svd` cut their
sum back to rank 8, and lost little. How far down could it go? Of all matrices of rank k, the nearest to a given one
keeps its k largest singular values. What it loses, measured by the Frobenius norm, is the root of the sum of the
squares of the others (Eckart and Young 1936).

`adapters` are tuples `(A, B, lora_alpha)`, with `A` of shape (r, d_in) and `B` of shape (d_out, r); they may differ in
r and in `lora_alpha`. Return the smallest rank to which the sum of their updates can be cut so that no more than the
share `most` of its norm is lost. (With `most` = 0.1, the norm of what is lost is at most a tenth of that of the sum.)
"""

import torch

from course_utils.exercises.exercise import Exercise

Adapter = tuple[torch.Tensor, torch.Tensor, float]


def needed_rank(adapters: list[tuple], most: float) -> int:
    """The smallest rank that loses at most that share of the norm of the summed updates."""
    total = sum(lora_alpha / len(A) * B @ A for A, B, lora_alpha in adapters)
    squares = torch.linalg.svdvals(total).square()
    lost = squares.flip(0).cumsum(0).flip(0)  # at place k: what a rank of k loses
    return int((lost > most**2 * lost[0]).sum())


def cases() -> dict[str, tuple[list[Adapter], float]]:
    torch.manual_seed(0)

    def adapter(sizes: list[float], lora_alpha: float) -> Adapter:
        """An adapter with these singular values, in random directions."""
        r = len(sizes)
        (Q, _), (P, _) = (torch.linalg.qr(torch.randn(d, r)) for d in (40, 30))
        return P.T * torch.tensor(sizes)[:, None], Q * (r / lora_alpha), lora_alpha

    slow, steep = adapter([4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5], 16.0), adapter([9.0, 3.0, 1.0, 0.3], 2.0)
    A, B, _ = adapter([3.0, 2.0, 2.0, 1.0], 4.0)
    loud = (10 * A, 10 * B, 0.01)
    return {
        "one adapter of rank 8, a tenth may be lost": ([slow], 0.1),
        "one adapter of rank 8, half may be lost": ([slow], 0.5),
        "two adapters, a tenth may be lost": ([slow, steep], 0.1),
        "two adapters, a third may be lost": ([slow, steep], 0.33),
        "two with the same directions": ([(A, B, 4.0), (A, 2 * B, 4.0)], 0.05),
        "one with large numbers and a small lora_alpha": ([steep, loud], 0.2),
        "one of rank 2, one of rank 24": ([adapter([6.0, 5.0], 4.0), adapter([1.0] * 24, 4.0)], 0.6),
        "all may be lost": ([slow], 1.001),
    }


def _sum(adapters: list[Adapter]) -> torch.Tensor:
    return sum(lora_alpha / A.shape[0] * B @ A for A, B, lora_alpha in adapters)


def _first(kept: torch.Tensor, enough: float) -> int:
    """The number of values after which their running sum has reached a share of the whole."""
    return int((kept.cumsum(0) < enough * kept.sum()).sum()) + 1


def not_scaled(adapters, most):
    return needed_rank([(A, B, float(len(A))) for A, B, _ in adapters], most)


def alpha_alone(adapters, most):
    return needed_rank([(A, B, lora_alpha * len(A)) for A, B, lora_alpha in adapters], most)


def root_of_r(adapters, most):
    return needed_rank([(A, B, lora_alpha * len(A) ** 0.5) for A, B, lora_alpha in adapters], most)


def from_one_on(adapters, most):
    return max(1, needed_rank(adapters, most))


def share_of_squares(adapters, most):
    return _first(torch.linalg.svdvals(_sum(adapters)).square(), 1 - most)


def share_of_values(adapters, most):
    return _first(torch.linalg.svdvals(_sum(adapters)), 1 - most)


def norm_kept(adapters, most):
    return _first(torch.linalg.svdvals(_sum(adapters)).square(), (1 - most) ** 2)


def above_the_largest(adapters, most):
    values = torch.linalg.svdvals(_sum(adapters))
    return int((values > most * values[0]).sum())


def one_too_many(adapters, most):
    return needed_rank(adapters, most) + 1


def one_too_few(adapters, most):
    return needed_rank(adapters, most) - 1


def each_alone(adapters, most):
    return sum(needed_rank([one], most) for one in adapters)


def ranks_added(adapters, most):
    return sum(len(A) for A, _, _ in adapters)


def by_trying(adapters, most):
    total = _sum(adapters)
    U, S, V = torch.linalg.svd(total)
    for k in range(len(S) + 1):
        if (total - U[:, :k] * S[:k] @ V[:k]).norm() <= most * total.norm():
            return k
    return len(S)


def without_the_large_matrix(adapters, most):
    A = torch.cat([A for A, _, _ in adapters])
    B = torch.cat([lora_alpha / len(A) * B for A, B, lora_alpha in adapters], dim=1)
    core = torch.linalg.qr(B)[1] @ torch.linalg.qr(A.T)[1].T
    values = torch.linalg.svdvals(core.double())
    return next(k for k in range(len(values) + 1) if values[k:].norm() <= most * values.norm())


EXERCISE = Exercise(
    answer=needed_rank,
    kind="write it",
    difficulty=3,
    minutes=12,
    cases=cases,
    mistakes={
        not_scaled: "Wrong for {wrong} of {cases} inputs, {yours} instead of {expected}: each update has its own "
        "lora_alpha / r, which decides how much it weighs in the sum.",
        alpha_alone: "Wrong for {wrong} of {cases} inputs, {yours} instead of {expected}: lora_alpha has to be divided "
        "by the r of its adapter.",
        root_of_r: "Wrong for {wrong} of {cases} inputs, {yours} instead of {expected}: lora_alpha was divided by the "
        "root of r, as rsLoRA does. These adapters divide by r.",
        from_one_on: "Rank {yours} instead of {expected}: where all may be lost, no rank is needed at all.",
        share_of_squares: "Rank {yours} instead of {expected}: the share was taken of the squares. A norm is their "
        "root, so of the squares only the share `most` times `most` may be lost.",
        share_of_values: "Rank {yours} instead of {expected}: singular values were added up as they are. The norm adds "
        "up their squares, in which the small ones hardly count.",
        norm_kept: "Rank {yours} instead of {expected}: what is kept and what is lost do not add up to the norm, only "
        "their squares do. A rank can keep 90 % of it and lose 44 %.",
        above_the_largest: "Rank {yours} instead of {expected}: each value was held against the largest. What is lost "
        "is all of the left-out values together, beside all there are.",
        one_too_many: "Rank {yours}, one more than needed: is your index the number of values that are kept, or the "
        "place of the last one?",
        one_too_few: "Rank {yours} loses too much, {expected} are needed: is your index the number of values that are "
        "kept, or the place of the last one?",
        each_alone: "Wrong for {wrong} of {cases} inputs, {yours} instead of {expected}: each adapter was cut by "
        "itself. In the sum a small one weighs less, and shared directions count once.",
        ranks_added: "Rank {yours} instead of {expected}: that is the rank of `cat`, which loses nothing.",
    },
    hints=(
        "Add up the updates first, each with its own scaling; then `torch.linalg.svdvals`. With rank k, which of the "
        "values are lost?",
        "What a rank of k loses is the norm of the values from place k on. Go up from k = 0, and stop as soon as that "
        "is at most `most` times the norm of all.",
    ),
    alternatives=(by_trying, without_the_large_matrix),
)
