"""Which tokens of a row are learned, if nobody noted it?

The lesson wrote down for each piece of text whether it is learned, while it made the tokens. Often there is a row of
ids alone. In ChatML, which has a place for a system turn, a turn is the start token, the name of its role, a newline,
the text, the end token, and a newline.

You get such `ids`, the ids `head` that begin an answer (start token, `assistant`, newline: four ids with the course's
tokenizer), and the id `end`. Return the labels: of each answer its tokens and its end, and -100 everywhere else. Three
things happen in real rows. Somebody writes the word `assistant` in a question; nobody can write the start token. The
end token also serves as padding. And a row may have been cut in the middle of an answer, of which the rest is learned.
"""

from collections.abc import Callable

from course_utils.exercises.exercise import Exercise

START, END, NEWLINE = 1, 2, 5
HEAD = [START, 7, 8, NEWLINE]  # "assistant" is two tokens, as in the course's tokenizer
SYSTEM, USER = [START, 9, NEWLINE], [START, 6, NEWLINE]


def answer_labels(ids: list[int], head: list[int], end: int) -> list[int]:
    """Labels of a row in ChatML: the answers with their ends, and -100 everywhere else."""
    labels, learned = [], False
    for place, token in enumerate(ids):
        learned = learned or ids[place - len(head) : place] == head
        labels.append(token if learned else -100)
        learned = learned and token != end
    return labels


def cases() -> dict[str, tuple[list[int], list[int], int]]:
    def row(*turns: list[int]) -> list[int]:
        return [token for turn in turns for token in (*turn, END, NEWLINE)]

    asked = [*USER, 20, 21, 22]
    rows = {
        "a system turn, a question, an answer": row([*SYSTEM, 10, 11], asked, [*HEAD, 30, 31, 32]),
        "two questions, two answers": row(asked, [*HEAD, 30, 31], [*USER, 23], [*HEAD, 32, 33, 34]),
        "padded with the end token": [*row(asked, [*HEAD, 30, 31]), *[END] * 4],
        "a question that says assistant": row([*USER, 20, 7, 8, NEWLINE, 21], [*HEAD, 30]),
        "an answer that is cut off": [*row(asked), *HEAD, 30, 31],
        "an answer of no words": row(asked, HEAD),
        "an answer of two lines": row(asked, [*HEAD, 30, NEWLINE, 31]),
        "a row that stops with the end of an answer": [*row(asked), *HEAD, 30, END],
    }
    short = {"a head of three ids": (row(asked, [*HEAD[:2], NEWLINE, 30, 31]), [*HEAD[:2], NEWLINE], END)}
    return {name: (ids, HEAD, END) for name, ids in rows.items()} | short


def outcome(answer: Callable[..., list[int]], ids: list[int], head: list[int], end: int) -> dict[str, str]:
    """What label each place has.

    Raises:
        ValueError: what is returned is no list of as many whole numbers as there are ids.
    """
    given = list(ids)
    labels = answer(ids, head, end)
    try:
        labels = [int(label) for label in labels]
        words = [{-100: "no label", token: "its label"} for token in given]
        found = [known.get(label, f"the label {label}") for known, label in zip(words, labels, strict=True)]
    except (TypeError, ValueError):
        raise ValueError(f"Return a list of {len(given)} labels, one for each id.") from None
    return {f"place {place} (id {token})": each for place, (token, each) in enumerate(zip(given, found, strict=True))}


def _answers(ids: list[int], head: list[int], end: int) -> list[range]:
    """The places of each answer, its end included."""
    starts = [n + len(head) for n in range(len(ids)) if ids[n : n + len(head)] == head]
    return [range(n, ids.index(end, n) + 1 if end in ids[n:] else len(ids)) for n in starts]


def _labels(ids: list[int], *learned: range) -> list[int]:
    return [token if any(place in each for each in learned) else -100 for place, token in enumerate(ids)]


def without_the_end(ids, head, end):
    return [-100 if token == end else token for token in answer_labels(ids, head, end)]


def with_the_head(ids, head, end):
    return _labels(ids, *(range(each.start - len(head), each.stop) for each in _answers(ids, head, end)))


def every_end(ids, head, end):
    return [end if ids[n] == end else label for n, label in enumerate(answer_labels(ids, head, end))]


def until_the_next_turn(ids, head, end):
    labels = _labels(ids, *_answers(ids, head, head[0]))  # the next start token is among them
    return [-100 if label == head[0] else label for label in labels]


def first_answer_alone(ids, head, end):
    return _labels(ids, *_answers(ids, head, end)[:1])


def last_answer_alone(ids, head, end):
    return _labels(ids, *_answers(ids, head, end)[-1:])


def by_the_word(ids, head, end):
    return answer_labels(ids, head[1:], end)


def whole_answers_alone(ids, head, end):
    return _labels(ids, *(each for each in _answers(ids, head, end) if ids[each.stop - 1] == end))


def closed_by_a_newline(ids, head, end):
    newline = head[-1]
    stops = [
        min((n for n in each if ids[n] in (newline, end)), default=each.stop - 1) for each in _answers(ids, head, end)
    ]
    return _labels(ids, *(range(each.start, n + 1) for each, n in zip(_answers(ids, head, end), stops, strict=True)))


def last_ends_are_padding(ids, head, end):
    text = len(ids)
    while text and ids[text - 1] == end:
        text -= 1
    return answer_labels(ids[:text], head, end) + [-100] * (len(ids) - text)


def head_of_four(ids, head, end):
    labels, learned = [], False
    for place, token in enumerate(ids):
        learned = learned or (ids[place - 4] == head[0] and ids[place - 3 : place - 1] == head[1:3] and place > 3)
        labels.append(token if learned else -100)
        learned = learned and end != token
    return labels


def moved_by_one(ids, head, end):
    return [*answer_labels(ids, head, end)[1:], -100]


def ones_and_zeros(ids, head, end):
    return [int(label != -100) for label in answer_labels(ids, head, end)]


def everything(ids, head, end):
    return list(ids)


def turn_by_turn(ids, head, end):
    labels, starts = [], [n for n, token in enumerate(ids) if token == head[0]]
    for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
        turn = ids[start:stop]
        text = turn[len(head) :]
        kept = text.index(end) + 1 if end in text else len(text)
        answer = turn[: len(head)] == head
        labels += [-100] * len(head) + text[:kept] + [-100] * (len(text) - kept) if answer else [-100] * len(turn)
    return labels


EXERCISE = Exercise(
    answer=answer_labels,
    kind="write it",
    difficulty=2,
    minutes=10,
    cases=cases,
    outcome=outcome,
    mistakes={
        without_the_end: "Wrong for {wrong} of {cases} rows: the ends of the answers have no label, so a model never "
        "learns to stop.",
        with_the_head: "Wrong for {wrong} of {cases} rows: the head is learned, too. The model is asked with it and "
        "never has to write it.",
        every_end: "Wrong for {wrong} of {cases} rows: every end token has a label, also that of a question, and "
        "padding. Only the one that closes an answer has to be learned.",
        until_the_next_turn: "Wrong for {wrong} of {cases} rows: an answer is over with its end token. The newline "
        "behind it, and padding, are learned as well.",
        first_answer_alone: "Wrong for {wrong} of {cases} rows: only the first answer is learned.",
        last_answer_alone: "Wrong for {wrong} of {cases} rows: only the last answer is learned.",
        by_the_word: "Wrong for {wrong} of {cases} rows: the word `assistant` in a question is taken for the "
        "beginning of an answer. Compare the whole head, with its start token.",
        whole_answers_alone: "Wrong for {wrong} of {cases} rows: of an answer that is cut off nothing is learned. "
        "What there is of it is learned, to the end of the row.",
        closed_by_a_newline: "Wrong for {wrong} of {cases} rows: an answer of two lines is over after the first. A "
        "newline may stand in an answer; only the end token closes it.",
        last_ends_are_padding: "Wrong for {wrong} of {cases} rows: end tokens at the end of a row are all taken for "
        "padding. Where the row stops with an answer, the first of them is its end.",
        head_of_four: "Wrong for {wrong} of {cases} rows: the head is taken to be four ids long. With another "
        "tokenizer it has another length: `len(head)`.",
        moved_by_one: "Wrong for {wrong} of {cases} rows: the labels lie one place too early. The loss moves them by "
        "one itself; a label stands at its own token.",
        ones_and_zeros: "Wrong for {wrong} of {cases} rows: that is a mask, of 1 and 0. A label is the id of the "
        "token itself, or -100.",
        everything: "Wrong for {wrong} of {cases} rows: every token has a label. That is how Guanaco was trained; "
        "asked for are the answers.",
    },
    hints=(
        "Go through the row once, and remember whether you are inside an answer. What switches that on, what off?",
        "On, when the ids just before this place are those of `head`. Off, behind a token that equals `end`. While it "
        "is on, the label is the token.",
    ),
    alternatives=(turn_by_turn,),
)
