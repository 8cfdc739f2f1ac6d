"""Does your test catch a collator that spoils a batch?

A collator takes examples (dicts with `input_ids` and `labels`) and the id `pad`, and returns a batch: the rows filled
up with `pad` to one length, an `attention_mask` that is 1 on the tokens and 0 on the padding, and labels that are -100
on the padding. Here is a right one, and five that are wrong, each in a way that has been seen.

Write a test: it gets such a function, calls it on examples of your choice, and returns whether to accept it. It has to
reject the five, and to accept what is right, also if it fills up further than it has to: the checker has one more right
collator, whose batches are a multiple of eight tokens wide, as some GPUs like them.
"""

from collections.abc import Callable

import torch

from course_utils.exercises.exercise import Exercise

Collate = Callable[[list[dict], int], dict[str, torch.Tensor]]


def filled_up(rows: list[list[int]], filler: int, width: int = 1) -> torch.Tensor:
    length = -(-max(map(len, rows)) // width) * width
    return torch.tensor([row + [filler] * (length - len(row)) for row in rows])


def collate(examples: list[dict], pad: int, width: int = 1) -> dict[str, torch.Tensor]:
    ids, labels = ([row[name] for row in examples] for name in ("input_ids", "labels"))
    mask = filled_up([[1] * len(row) for row in ids], 0, width)
    return {"input_ids": filled_up(ids, pad, width), "attention_mask": mask, "labels": filled_up(labels, -100, width)}


def unlabels_by_token(examples: list[dict], pad: int) -> dict[str, torch.Tensor]:
    batch = collate(examples, pad)
    return batch | {"labels": batch["labels"].masked_fill(batch["input_ids"] == pad, -100)}


def hides_by_token(examples: list[dict], pad: int) -> dict[str, torch.Tensor]:
    batch = collate(examples, pad)
    return batch | {"attention_mask": (batch["input_ids"] != pad).long()}


def learns_padding(examples: list[dict], pad: int) -> dict[str, torch.Tensor]:
    return collate(examples, pad) | {"labels": filled_up([row["labels"] for row in examples], pad)}


def attends_to_padding(examples: list[dict], pad: int) -> dict[str, torch.Tensor]:
    batch = collate(examples, pad)
    return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}


def moves_the_tokens(examples: list[dict], pad: int) -> dict[str, torch.Tensor]:
    return collate(examples, pad) | {"input_ids": filled_up([row["input_ids"][::-1] for row in examples], pad).flip(1)}


def eight_wide(examples: list[dict], pad: int) -> dict[str, torch.Tensor]:
    return collate(examples, pad, width=8)


def accepts_collate(made: Callable) -> bool:
    """Whether a collator is right, tried on examples of your choice."""
    end = 2
    rows = [[5, 6, end, 7, 8, end], [9, end]]
    batch = made([{"input_ids": row, "labels": [-100, *row[1:]]} for row in rows], end)
    for place, row in enumerate(rows):
        left = batch["input_ids"].shape[1] - len(row)
        wanted = {"input_ids": row + left * [end], "attention_mask": len(row) * [1] + left * [0]}
        wanted["labels"] = [-100, *row[1:]] + left * [-100]
        if any(batch[name][place].tolist() != values for name, values in wanted.items()):
            return False
    return True


def cases() -> dict[str, tuple[Collate]]:
    return {
        "the right collator": (collate,),
        "a right one that fills up to a multiple of eight": (eight_wide,),
        "unlabels_by_token": (unlabels_by_token,),
        "hides_by_token": (hides_by_token,),
        "learns_padding": (learns_padding,),
        "attends_to_padding": (attends_to_padding,),
        "moves_the_tokens": (moves_the_tokens,),
    }


LEARNED = [[5, 6, 2, 7, 8, 2], [9, 2]]  # 2 is the end


def _tried(
    made: Collate,
    rows: list[list[int]] = LEARNED,
    pad: int = 2,
    names: tuple[str, ...] = ("input_ids", "attention_mask", "labels"),
    end_learned: bool = True,
    wide: bool = True,
) -> bool:
    """Whether the parts of a batch that have these names are right, of all its width or of the tokens alone."""
    examples = [
        {"input_ids": row, "labels": [token if end_learned or token != 2 else -100 for token in row]} for row in rows
    ]
    batch = made(examples, pad)
    right = collate(examples, pad, batch["input_ids"].shape[1])
    places = right["attention_mask"].bool() if not wide else torch.ones_like(right["attention_mask"]).bool()
    return all(torch.equal(batch[name][places], right[name][places]) for name in names)


def another_pad(made):
    return _tried(made, pad=0)


def nothing_to_fill_up(made):
    return _tried(made, rows=LEARNED[:1])


def labels_not_looked_at(made):
    return _tried(made, names=("input_ids", "attention_mask"))


def mask_not_looked_at(made):
    return _tried(made, names=("input_ids", "labels"))


def tokens_not_looked_at(made):
    return _tried(made, names=("attention_mask", "labels"))


def ends_not_learned(made):
    return _tried(made, end_learned=False)


def another_pad_and_nothing_to_fill_up(made):
    return _tried(made, rows=LEARNED[:1], pad=0)


def of_one_width(made):
    return _tried(made) and made([{"input_ids": [1], "labels": [1]}], 2)["labels"].shape == (1, 1)


def none_accepted(made):
    return False


def with_losses(made):
    rows = [{"input_ids": [4, 2, 5, 2], "labels": [-100, 2, -100, 2]}, {"input_ids": [3, 2], "labels": [-100, 2]}]
    batch = made(rows, 2)
    counts = (batch["labels"] != -100).sum(1).tolist(), batch["attention_mask"].sum(1).tolist()
    whole = (batch["attention_mask"][0, :4] == 1).all() and batch["attention_mask"][1, 0] == 1
    return counts == ([2, 1], [4, 2]) and bool(whole) and batch["input_ids"][1, :2].tolist() == [3, 2]


EXERCISE = Exercise(
    answer=accepts_collate,
    kind="test it",
    difficulty=2,
    minutes=12,
    cases=cases,
    given=(filled_up, collate, unlabels_by_token, hides_by_token, learns_padding, attends_to_padding, moves_the_tokens),
    mistakes={
        another_pad: "{wrong} of {cases} are judged wrongly: unlabels_by_token and hides_by_token are accepted. They "
        "do harm where the padding is a token that also stands in a row, such as its end.",
        nothing_to_fill_up: "{wrong} of {cases} are judged wrongly: learns_padding, attends_to_padding and "
        "moves_the_tokens are accepted. Was there padding in your batch, and did you look at it?",
        labels_not_looked_at: "{wrong} of {cases} are judged wrongly: unlabels_by_token and learns_padding are "
        "accepted. What is wrong with them are the labels.",
        mask_not_looked_at: "{wrong} of {cases} are judged wrongly: hides_by_token and attends_to_padding are "
        "accepted. What is wrong with them is the attention mask.",
        tokens_not_looked_at: "{wrong} of {cases} is judged wrongly: moves_the_tokens is accepted. Mask and labels "
        "stand where they should; the tokens stand on the other side of the padding.",
        ends_not_learned: "{wrong} of {cases} is judged wrongly: unlabels_by_token is accepted. It takes the label "
        "from an end token; in your examples, does any end have one?",
        another_pad_and_nothing_to_fill_up: "{wrong} of {cases} are judged wrongly: all five wrong ones are accepted. "
        "Make rows of two lengths, with `pad` among their tokens, and look at all three.",
        of_one_width: "{wrong} of {cases} is judged wrongly: a right one is rejected, which fills up further than it "
        "has to. Read the width from the batch.",
        none_accepted: "{wrong} of {cases} are judged wrongly: nothing is accepted, not even `collate` itself.",
    },
    hints=(
        "For each of the five: on which examples does it do the same as the right one? Choose others. Two of them "
        "need a `pad` that is also a token of a row, and learned there.",
        "Two rows of different lengths that end with `pad`, and this end has a label. Compare ids, labels and mask "
        "with what you write down for them by hand, filled up to the width that the batch has.",
    ),
    alternatives=(with_losses,),
)
