"""Which is the second-best thread of a tree?

Guanaco took the best-ranked reply at every turn, which gives the best thread. A second one would be more data. Which?
Of two threads, the better is the one with the better reply *where they part*. (So the second-best parts from the best
one as late as it can.)

A `tree` is a `datafiles.Message`, with `text`, `role` ("prompter" or "assistant"), `rank` and `replies`. A rank is 0
for the best, may leave numbers out, and is None for a reply that nobody ranked: such replies come last, in the order in
which they stand. Here the replies may stand in any order. A thread ends with an answer: a last question that nobody
answered is left out. Threads that then read the same are one. Return the texts of the second-best thread, or None if
there is only one.
"""

import math

from course_utils import datafiles
from course_utils.exercises.exercise import Exercise

Message = datafiles.Message


def second_best_thread(tree: datafiles.Message) -> list[str] | None:
    """The texts of the thread that comes second, or None if there is only one."""

    def threads(message: datafiles.Message) -> list[tuple[str, ...]]:
        if not message.replies:
            return [(message.text,) if message.role == "assistant" else ()]
        ranked = sorted(message.replies, key=lambda reply: math.inf if reply.rank is None else reply.rank)
        return [(message.text, *rest) for reply in ranked for rest in threads(reply)]

    different = list(dict.fromkeys(threads(tree)))
    return list(different[1]) if len(different) > 1 else None


def cases() -> dict[str, tuple[Message]]:
    def said(text: str, rank: int | None, *replies: Message) -> Message:
        role = "prompter" if text.startswith("Q") else "assistant"
        return Message(text, text, role, rank=rank, replies=list(replies))

    def two(name: str, first: int, second: int) -> list[Message]:
        """Two answers, the worse first."""
        return [said(f"{name} worse", second), said(f"{name} better", first)]

    deep = [said("Q2", 1, *two("A2", 0, 1)), said("Q1", 0, *two("A1", 0, 1))]
    other = [said("Q4", 1, *two("A4", 0, 1)), said("Q3", 0, *two("A3", 0, 1))]
    asked = said("Q2", None, *two("A2", 0, 1))
    late = said("A", 0, said("Q1", 0, *two("A1", 3, 7)))
    return {
        "three replies": (said("Q", None, said("A", 2), said("B", 0), said("C", 1)),),
        "two replies at every turn": (said("Q", None, said("B", 1, *other), said("A", 0, *deep)),),
        "one thread alone": (said("Q", None, said("A", 0, said("Q1", 0, said("A1", 0)))),),
        "a last question with one answer": (said("Q", None, said("B", 1), said("A", 0, said("Q1", 0, said("A1", 0)))),),
        "two last questions without an answer": (
            said("Q", None, said("A", 0, said("Q1", 0), said("Q2", 1)), said("B", 1), said("C", 2)),
        ),
        "a reply that nobody ranked": (said("Q", None, said("A", None), said("C", 1), said("B", 0)),),
        "questions that nobody ranked": (said("Q", None, said("A", 0, said("Q1", None, *two("A1", 0, 1)), asked)),),
        "ranks that leave numbers out": (said("Q", None, said("B", 1), late),),
    }


def _best(replies: list[Message], place: int = 0) -> Message:
    ranked = sorted(replies, key=lambda reply: (reply.rank is None, reply.rank or 0))
    return ranked[min(place, len(ranked) - 1)]


def _walk(tree: Message, *places: int, otherwise: int = 0) -> list[str]:
    """The texts along the replies of these places, and of the place `otherwise` from there on."""
    thread, places = [tree], list(places)
    while thread[-1].replies:
        thread.append(_best(thread[-1].replies, places.pop(0) if places else otherwise))
    return [each.text for each in thread[: len(thread) - (thread[-1].role == "prompter")]]


def _paths(message: Message, ranks: tuple = (), texts: tuple[str, ...] = ()) -> list[tuple[tuple, tuple, str]]:
    """Of all paths the ranks with the places, the texts, and who has the last word; in the order of the file."""
    texts = (*texts, message.text)
    if not message.replies:
        return [(ranks, texts, message.role)]
    ranked = [math.inf if reply.rank is None else reply.rank for reply in message.replies]
    return [
        path
        for place, (rank, reply) in enumerate(zip(ranked, message.replies, strict=True))
        for path in _paths(reply, (*ranks, (rank, place)), texts)
    ]


def _second(paths: list, key, unanswered: bool = False) -> list[str] | None:
    texts = [
        texts[:-1] if role == "prompter" and not unanswered else texts for _, texts, role in sorted(paths, key=key)
    ]
    different = list(dict.fromkeys(texts))
    return list(different[1]) if len(different) > 1 else None


def the_best(tree):
    return _walk(tree)


def parts_at_the_first_answer(tree):
    return _walk(tree, 1) if len(tree.replies) > 1 else None


def parts_at_the_last_answer(tree):
    path = [tree]
    while path[-1].replies:
        path.append(_best(path[-1].replies))
    answers = [place for place, message in enumerate(path) if message.role == "assistant"]
    others = path[answers[-1] - 1].replies
    return [*(each.text for each in path[: answers[-1]]), _best(others, 1).text] if len(others) > 1 else None


def second_everywhere(tree):
    return _walk(tree, otherwise=1)


def the_worst(tree):
    return _walk(tree, otherwise=99)


def last_question_kept(tree):
    return _second(_paths(tree), lambda path: path[0], unanswered=True)


def the_same_twice(tree):
    paths = sorted(_paths(tree), key=lambda path: path[0])[:2]
    return None if len(paths) < 2 else list(paths[1][1][: len(paths[1][1]) - (paths[1][2] == "prompter")])


def unranked_first(tree):
    return _second(_paths(tree), lambda path: [(-1 if rank == math.inf else rank, place) for rank, place in path[0]])


def in_the_order_given(tree):
    return _second(_paths(tree), lambda path: 0)


def ranks_added_up(tree):
    return _second(_paths(tree), lambda path: sum(rank for rank, _ in path[0]))


def best_where_there_is_one(tree):
    return second_best_thread(tree) or _walk(tree)


def of_all_paths(tree):
    return _second(_paths(tree), lambda path: path[0])


EXERCISE = Exercise(
    answer=second_best_thread,
    kind="write it",
    difficulty=3,
    minutes=12,
    cases=cases,
    mistakes={
        the_best: "Wrong for {wrong} of {cases} trees: that is the best thread itself.",
        parts_at_the_first_answer: "Wrong for {wrong} of {cases} trees: it parts from the best thread at the first "
        "answer. One that parts later shares more of the better replies.",
        parts_at_the_last_answer: "Wrong for {wrong} of {cases} trees: only the last answer was exchanged. Where it is "
        "the only one to its question, the thread can still part from the best one further up.",
        second_everywhere: "Wrong for {wrong} of {cases} trees: the second-best reply was taken at every turn. Only "
        "one turn has to differ.",
        the_worst: "Wrong for {wrong} of {cases} trees: that is the worst-ranked reply at every turn.",
        last_question_kept: "Wrong for {wrong} of {cases} trees: the thread ends with a question that nobody answered. "
        "There is nothing to learn from it.",
        the_same_twice: "Wrong for {wrong} of {cases} trees: without its last, unanswered question it reads like the "
        "best thread. What reads the same counts once.",
        unranked_first: "Wrong for {wrong} of {cases} trees: a reply that nobody ranked was put before the "
        "ranked ones.",
        in_the_order_given: "Wrong for {wrong} of {cases} trees: the replies were taken in the order in which they "
        "stand. Here that is not the order of their ranks.",
        ranks_added_up: "Wrong for {wrong} of {cases} trees: the ranks along a thread were added up. A rank is a place "
        "among the replies to one message; what counts is the reply where two threads part.",
        best_where_there_is_one: "Wrong for {wrong} of {cases} trees: where there is one thread alone, there is no "
        "second: None.",
    },
    hints=(
        "Write a function of a message that returns all threads from there on, the best first. What does it return "
        "for a message without replies: if it is an answer, if it is a question?",
        "For a message with replies: sort these by rank, None last; put the text before each thread of the first, then "
        "of the second, and so on. `dict.fromkeys` drops what is there twice, and keeps the order.",
    ),
    alternatives=(of_all_paths,),
)
