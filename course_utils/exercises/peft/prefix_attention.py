"""What does a head see behind a prefix?

Prefix tuning hands trained keys and values to every layer. Write what one head of one layer does with them, without a
cache. `q`, `k` and `v` are the queries, keys and values of a text, `prefix_k` and `prefix_v` those of the prefix.
Each token attends to the whole prefix, and to the text up to itself; never to padding, which has a 0 in `mask` where
the text has a 1. (What
comes out at the places of padding is not compared, but has to be numbers: gradients flow back from there, too.)

The rest is attention as always. The scores are the products of queries and keys, divided by the root of their width.
One softmax over all that a token sees turns them into shares, and the values, weighted with these, are the output.

Before you run it: does a prefix whose keys and values are all zero leave the output as it was?
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from course_utils.exercises.exercise import Exercise


def prefix_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    prefix_k: torch.Tensor,
    prefix_v: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """The output, (tokens, width). q, k, v: (tokens, width); prefix_k, prefix_v: (p, width); mask: (tokens,)."""
    scores = q @ torch.cat([prefix_k, k]).T / math.sqrt(q.shape[1])
    text = torch.ones(len(q), len(k), dtype=torch.bool).tril() & mask.bool()
    seen = functional.pad(text, (len(prefix_k), 0), value=True)
    return scores.masked_fill(~seen, -math.inf).softmax(dim=1) @ torch.cat([prefix_v, v])


def cases() -> dict[str, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)

    def made(p: int, mask: list[int]) -> tuple[torch.Tensor, ...]:
        prefix = [torch.randn(p, 8).requires_grad_() for _ in "kv"]
        return *(torch.randn(len(mask), 8) for _ in "qkv"), *prefix, torch.tensor(mask)

    *text, _, _, mask = made(2, [1, 1, 1])
    return {
        "no padding": made(3, [1, 1, 1, 1]),
        "padded on the left": made(3, [0, 0, 1, 1, 1]),
        "padded on the right": made(2, [1, 1, 1, 0]),
        "a prefix of zeros": (*text, torch.zeros(2, 8), torch.zeros(2, 8), mask),
    }


def outcome(
    answer: Callable[..., torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    prefix_k: torch.Tensor,
    prefix_v: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """The outputs at the places of the text; all that came, if it has another shape."""
    found = answer(q, k, v, prefix_k, prefix_v, mask)
    return found[mask.bool()] if isinstance(found, torch.Tensor) and found.shape == v.shape else found


def _attended(q, k, v, seen, scaling=None):
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling)


def _seen(q, prefix_k, mask, upper=0):
    seen = torch.ones(len(q), len(prefix_k) + len(mask), dtype=torch.bool).tril(len(prefix_k) + upper)
    return seen & torch.cat([mask.new_ones(len(prefix_k)), mask]).bool()


def _scores(q, k, prefix_k):
    return q @ torch.cat([prefix_k, k]).T / math.sqrt(q.shape[1])


def softmax_over_the_queries(q, k, v, prefix_k, prefix_v, mask):
    scores = _scores(q, k, prefix_k).masked_fill(~_seen(q, prefix_k, mask), -1e9)
    return scores.softmax(dim=0) @ torch.cat([prefix_v, v])


def unscaled(q, k, v, prefix_k, prefix_v, mask):
    keys, values = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    return _attended(q, keys, values, _seen(q, prefix_k, mask), scaling=1.0)


def triangle_at_the_start(q, k, v, prefix_k, prefix_v, mask):
    keys, values = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    return _attended(q, keys, values, _seen(q, prefix_k, mask, upper=-len(prefix_k)))


def triangle_of_the_library(q, k, v, prefix_k, prefix_v, mask):
    keys, values = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    return functional.scaled_dot_product_attention(q, keys, values, is_causal=True)


def ones_behind(q, k, v, prefix_k, prefix_v, mask):
    keys, values = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    seen = _seen(q, prefix_k, torch.ones_like(mask)) & torch.cat([mask, mask.new_ones(len(prefix_k))]).bool()
    return _attended(q, keys, values, seen)


def padding_seen(q, k, v, prefix_k, prefix_v, mask):
    return prefix_attention(q, k, v, prefix_k, prefix_v, torch.ones_like(mask))


def later_seen(q, k, v, prefix_k, prefix_v, mask):
    keys, values = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    return _attended(q, keys, values, _seen(q, prefix_k, mask, upper=len(mask)))


def itself_unseen(q, k, v, prefix_k, prefix_v, mask):
    keys, values = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    return _attended(q, keys, values, _seen(q, prefix_k, mask, upper=-1))


def scores_of_zero(q, k, v, prefix_k, prefix_v, mask):
    return (_scores(q, k, prefix_k) * _seen(q, prefix_k, mask)).softmax(dim=1) @ torch.cat([prefix_v, v])


def masked_after_the_softmax(q, k, v, prefix_k, prefix_v, mask):
    shares = _scores(q, k, prefix_k).softmax(dim=1)
    return (shares * _seen(q, prefix_k, mask)) @ torch.cat([prefix_v, v])


def nothing_seen_from_padding(q, k, v, prefix_k, prefix_v, mask):
    seen = _seen(q, prefix_k, mask) & mask.bool()[:, None]
    return _scores(q, k, prefix_k).masked_fill(~seen, -math.inf).softmax(dim=1) @ torch.cat([prefix_v, v])


def two_softmaxes(q, k, v, prefix_k, prefix_v, mask):
    nothing = prefix_k[:0]
    return _attended(q, prefix_k, prefix_v, None) + _attended(q, k, v, _seen(q, nothing, mask))


def no_prefix(q, k, v, prefix_k, prefix_v, mask):
    return _attended(q, k, v, _seen(q, prefix_k[:0], mask))


def by_library(q, k, v, prefix_k, prefix_v, mask):
    keys, values = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    return _attended(q, keys, values, _seen(q, prefix_k, mask))


def token_by_token(q, k, v, prefix_k, prefix_v, mask):
    outputs = []
    for place, query in enumerate(q):
        seen = [other for other in range(place + 1) if mask[other]]
        keys, values = torch.cat([prefix_k, k[seen]]), torch.cat([prefix_v, v[seen]])
        outputs.append((keys @ query / len(query) ** 0.5).softmax(0) @ values)
    return torch.stack(outputs)


EXERCISE = Exercise(
    answer=prefix_attention,
    kind="write it",
    difficulty=2,
    minutes=12,
    cases=cases,
    outcome=outcome,
    mistakes={
        unscaled: "Off by {off:.0f} %: the scores were not divided by the root of the width, so the largest takes "
        "nearly everything.",
        softmax_over_the_queries: "Off by {off:.0f} %: the softmax goes over the tokens that ask. The shares of one "
        "token over all that it sees have to add up to 1: `dim=1`.",
        triangle_at_the_start: "Off by {off:.0f} %: the triangle begins at the prefix, so that the first token sees "
        "one place of it, and no token itself. All of the prefix comes before the text.",
        triangle_of_the_library: "Off by {off:.0f} %: the triangle of `is_causal=True` begins at the prefix, so that "
        "no token sees itself; and it knows nothing of padding. Make the mask yourself.",
        ones_behind: "Wrong for {wrong} of {cases} inputs, off by {off:.0f} % for the first: the mask was grown "
        "behind the text. The prefix stands in front, also in front of padding.",
        padding_seen: "Wrong for {wrong} of {cases} inputs, off by {off:.0f} %: padding is attended to. On the right "
        "the triangle hides it from the text, on the left nothing does.",
        later_seen: "Off by {off:.0f} %: each token sees what comes after it.",
        itself_unseen: "Off by {off:.0f} %: no token sees itself. Its diagonal belongs to the triangle.",
        scores_of_zero: "Off by {off:.0f} %: what is not seen got a score of 0, which is a share like any other. Only "
        "minus infinity leaves nothing.",
        masked_after_the_softmax: "Off by {off:.0f} %: the shares were made of all scores, and some of them dropped "
        "afterwards, so the rest do not add up to 1.",
        nothing_seen_from_padding: "Wrong for {wrong} of {cases} inputs: the rows of padding see nothing, and the "
        "softmax of nothing is NaN, which spoils the gradients of all. Let them see the prefix.",
        two_softmaxes: "Off by {off:.0f} %: prefix and text have a softmax each, so the shares add up to 2. The prefix "
        "has to take its share from the text.",
        no_prefix: "Off by {off:.0f} %: the prefix is not in it. (One of zeros changes the output as well: its scores "
        "are 0, not minus infinity.)",
    },
    hints=(
        "Put the keys of the prefix in front of those of the text; the scores then have tokens as rows, and p columns "
        "more. Draw which of them a row may see, for a text of three tokens.",
        "On the right a triangle, the diagonal included, without the columns of padding; on the left p columns, all "
        "seen. What is not seen gets a score of minus infinity before the softmax. (A key of "
        "zeros gets 0, and with it a share.)",
    ),
    alternatives=(by_library, token_by_token),
)
