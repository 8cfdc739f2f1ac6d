"""What is the loss of a step that was made of several micro-batches?

Where a batch does not fit, its gradients are added up over micro-batches, and then one step is taken. Conversations
have answers of all lengths, so one micro-batch may hold ten times as many answer tokens as another. Each answer token
of the step shall count the same: that is what one large batch would have done, and how transformers has counted since
2024. Before, the mean was taken of the means.

`micro_batches` is a list of `(logits, labels)`, with logits of shape (rows, length, vocabulary) and labels of shape
(rows, length), where -100 is skipped. Return the mean loss over the answer tokens of the whole step. Remember who
predicts whom: the logits at a place are those of the *next* token, so the first label of a row is never asked for.
"""

import torch
from torch.nn.functional import cross_entropy

from course_utils.exercises.exercise import Exercise

MicroBatch = tuple[torch.Tensor, torch.Tensor]


def step_loss(micro_batches: list[tuple]) -> torch.Tensor:
    """The mean loss in nats over all answer tokens of a step, from (logits, labels) of each micro-batch."""
    total, count = 0, 0
    for logits, labels in micro_batches:
        asked = labels[:, 1:]
        total = total + cross_entropy(logits[:, :-1].flatten(0, 1), asked.flatten(), reduction="sum")
        count = count + (asked != -100).sum()
    return total / count


def cases() -> dict[str, tuple[list[MicroBatch]]]:
    torch.manual_seed(0)

    def micro_batch(*rows: tuple[int, int], length: int = 8) -> MicroBatch:
        """Rows whose labels are those from one place up to another."""
        labels = torch.full((len(rows), length), -100)
        for row, (start, stop) in zip(labels, rows, strict=True):
            row[start:stop] = torch.randint(12, (stop - start,))
        return 2 * torch.randn(len(rows), length, 12), labels

    return {
        "one micro-batch": ([micro_batch((2, 6), (5, 8))],),
        "a short answer, then long ones": ([micro_batch((6, 8)), micro_batch((2, 8), (1, 8), length=9)],),
        "a micro-batch without an answer": ([micro_batch((2, 6)), micro_batch((0, 0))],),
        "rows that are learned from the first token on": ([micro_batch((0, 8), (0, 5)), micro_batch((0, 3))],),
    }


def _losses(micro_batch: MicroBatch, move: int = 1) -> torch.Tensor:
    """The losses of a micro-batch, 0 where nothing is asked."""
    logits, labels = micro_batch
    if move < 0:
        logits, labels = logits[:, -move:], labels[:, :move]
    else:
        logits, labels = logits[:, : logits.shape[1] - move], labels[:, move:]
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")


def _step(micro_batches: list[MicroBatch], count, move: int = 1) -> torch.Tensor:
    """All losses of a step, over what is counted of each micro-batch."""
    return sum(_losses(each, move).sum() for each in micro_batches) / sum(count(*each) for each in micro_batches)


def mean_of_means(micro_batches):
    means = [cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()) for logits, labels in micro_batches]
    return sum(means) / len(means)


def mean_of_rows(micro_batches):
    return mean_of_means([row for each in micro_batches for row in zip(*(part.split(1) for part in each), strict=True)])


def means_added_up(micro_batches):
    return mean_of_means(micro_batches) * len(micro_batches)


def weighted_by_rows(micro_batches):
    means = [mean_of_means([each]) * len(each[1]) for each in micro_batches]
    return sum(means) / sum(len(labels) for _, labels in micro_batches)


def not_moved(micro_batches):
    return _step(micro_batches, lambda logits, labels: (labels != -100).sum(), move=0)


def moved_the_other_way(micro_batches):
    return _step(micro_batches, lambda logits, labels: (labels[:, :-1] != -100).sum(), move=-1)


def rows_run_together(micro_batches):
    total, count = 0, 0
    for logits, labels in micro_batches:
        asked = labels.flatten()[1:]
        total = total + cross_entropy(logits.flatten(0, 1)[:-1], asked, reduction="sum")
        count = count + asked.ne(-100).sum()
    return total / count


def first_labels_counted(micro_batches):
    return _step(micro_batches, lambda logits, labels: (labels != -100).sum())


def all_places_counted(micro_batches):
    return _step(micro_batches, lambda logits, labels: labels[:, 1:].numel())


def not_divided(micro_batches):
    return sum(_losses(each).sum() for each in micro_batches)


def by_micro_batches(micro_batches):
    return not_divided(micro_batches) / len(micro_batches)


def one_by_one(micro_batches):
    losses = [
        -logits[row, place - 1].log_softmax(0)[labels[row, place]].item()
        for logits, labels in micro_batches
        for row in range(len(labels))
        for place in range(1, labels.shape[1])
        if labels[row, place] != -100
    ]
    return sum(losses) / len(losses)


EXERCISE = Exercise(
    answer=step_loss,
    kind="write it",
    difficulty=2,
    minutes=10,
    cases=cases,
    mistakes={
        mean_of_means: "{yours:.4f} instead of {expected:.4f}: that is the mean of the means. A token of a micro-batch "
        "with few of them then counts for many of another.",
        means_added_up: "{yours:.4f} instead of {expected:.4f}: the means were added up. That makes a step larger, the "
        "more micro-batches it has.",
        mean_of_rows: "{yours:.4f} instead of {expected:.4f}: the mean was taken of one mean a row. A token of a short "
        "answer then counts for many of a long one.",
        weighted_by_rows: "{yours:.4f} instead of {expected:.4f}: the means were weighted with the numbers of rows. "
        "Rows have answers of different lengths; what counts are tokens.",
        not_moved: "{yours:.4f} instead of {expected:.4f}: the logits at a place were held against the token at the "
        "same place, which the model has seen. They predict the next one.",
        moved_the_other_way: "{yours:.4f} instead of {expected:.4f}: the logits were held against the token *before* "
        "them. They predict the next one.",
        rows_run_together: "{yours:.4f} instead of {expected:.4f}: the rows were put in one line before they were "
        "moved by one. So the last place of a row is asked for the first token of the next.",
        first_labels_counted: "{yours:.4f} instead of {expected:.4f}: the sum is right, but a label in the first place "
        "was counted. Nothing predicts it, so it has no loss.",
        all_places_counted: "{yours:.4f} instead of {expected:.4f}, {ratio:.2f} times: divided by all places, also "
        "those that are skipped.",
        not_divided: "{yours:.4f} instead of {expected:.4f}: that is the sum over the answer tokens, not their mean.",
        by_micro_batches: "{yours:.4f} instead of {expected:.4f}: the sum of the losses was divided by the number of "
        "micro-batches. Divide by the answer tokens of all of them.",
    },
    hints=(
        'Two numbers grow from micro-batch to micro-batch: the sum of the losses (`reduction="sum"`), and how many '
        "there are. Divide once, at the end.",
        "The logits without the last place belong to the labels without the first. `cross_entropy` wants (n, "
        "vocabulary) and (n,), and skips -100 itself; count the others among the labels that you gave to it.",
    ),
    alternatives=(one_by_one,),
)
