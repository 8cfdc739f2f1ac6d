"""What does the check not notice?

`training.check` finds eight of the lesson's ten traps (the other two lie behind training), and says of itself that it
looks at what a model would see. No check sees everything. Here are seven set-ups of one conversation, each spoiled in
another way, as rows of ids and labels, or with a recipe beside them. Predict what the check says of each: a dict from
the name of the set-up to the name of a trap, such as `"end_cut_off"`, or `"nothing"`. What each trap is, by its name,
stands in `training.traps.WAYS_OUT`.

Then look yourself: of each `row, more` in `spoiled().values()`, `training.check([row], loading.load_tokenizer(),
**more)`. What would you have to do to find those that get through?
"""

import functools
from collections.abc import Callable

from course_utils import chat, loading, training
from course_utils.exercises.exercise import Exercise
from course_utils.training.traps import WAYS_OUT

WORDS = (*WAYS_OUT, "nothing")


def spoiled() -> dict[str, tuple[dict, dict]]:
    """Seven set-ups: a row of ids and labels, and what else is given to the check."""
    tokenizer = loading.load_tokenizer()
    asked, answered = {"role": "user", "content": "Where is Lima?"}, {"role": "assistant", "content": "In Peru."}
    right = chat.encode([asked, answered, asked, answered], tokenizer)
    ids, labels = right["input_ids"], right["labels"]
    end = tokenizer.eos_token_id
    inside = ids.index(end)

    def row(ids: list[int], labels: list[int], **more: object) -> tuple[dict, dict]:
        return {"input_ids": ids, "labels": labels}, more

    lima, wrong = (chat.encode(chat.question("Where is Lima?", text), tokenizer) for text in ("In Peru.", "In Spain."))
    recipe = training.Recipe(steps=20, warmup_steps=20, schedule="linear", lr=1e-3)
    return {
        "the questions are learned, not the answers": row(
            ids, [-100 if label != -100 else token for token, label in zip(ids, labels, strict=True)]
        ),
        "all labels lie one place too early": row(ids, labels[1:] + [-100]),
        "only the last answer has an end": row(
            ids[:inside] + ids[inside + 1 :], labels[:inside] + labels[inside + 1 :]
        ),
        "the first question is cut off": row(ids[5:], labels[5:]),
        "two ends behind the last answer": row([*ids, end], [*labels, end]),
        "the answer is false": row(wrong["input_ids"], wrong["labels"]),
        "a warm-up as long as the run": row(lima["input_ids"], lima["labels"], args=recipe),
    }


def unnoticed() -> dict[str, str]:
    """Of each set-up the trap that the check names, or "nothing"."""
    return {
        "the questions are learned, not the answers": "nothing",
        "all labels lie one place too early": "end_masked",
        "only the last answer has an end": "nothing",
        "the first question is cut off": "nothing",
        "two ends behind the last answer": "special_token_in_text",
        "the answer is false": "nothing",
        "a warm-up as long as the run": "warmup_never_warms",
    }


def cases() -> dict[str, tuple]:
    return {"the seven set-ups": ()}


def outcome(answer: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What is said of each set-up.

    Raises:
        ValueError: a set-up is missing, or a word is no name of a trap.
    """
    said, names = answer(), list(SPOILED)
    if not isinstance(said, dict) or {*said} != {*names}:
        raise ValueError(f"Return a dict with these keys: {', '.join(map(repr, names))}.")
    if unknown := sorted({str(word) for word in said.values()} - {*WORDS}):
        raise ValueError(f"There is no trap {', '.join(unknown)}; the words are {', '.join(WORDS)}.")
    return {name: said[name] for name in names}


SPOILED = tuple(unnoticed())  # the names of the set-ups
LEARNED, MOVED, ONE_END, CUT, TWO_ENDS, _, WARM_UP = SPOILED


def any_label_is_asked_for():
    return {**unnoticed(), LEARNED: "nothing_to_learn"}


def moved_unseen():
    return {**unnoticed(), MOVED: "nothing"}


def every_answer_is_asked_for():
    return {**unnoticed(), ONE_END: "end_cut_off"}


def masked_where_there_is_no_end():
    return {**unnoticed(), ONE_END: "end_masked"}


def beginning_is_asked_for():
    return {**unnoticed(), CUT: "template_mismatch"}


def second_end_unseen():
    return {**unnoticed(), TWO_ENDS: "nothing"}


def linear_has_a_warm_up():
    return {**unnoticed(), WARM_UP: "nothing"}


def everything_is_found():
    return {**unnoticed(), LEARNED: "nothing_to_learn", ONE_END: "end_cut_off", CUT: "template_mismatch"}


def nothing_is_found():
    return dict.fromkeys(SPOILED, "nothing")


@functools.cache
def looked():
    tokenizer = loading.load_tokenizer()
    found = {name: training.check([row], tokenizer, **more) for name, (row, more) in spoiled().items()}
    return {name: findings[0].name if findings else "nothing" for name, findings in found.items()}


EXERCISE = Exercise(
    answer=unnoticed,
    kind="find it",
    difficulty=3,
    minutes=12,
    cases=cases,
    outcome=outcome,
    given=(spoiled,),
    mistakes={
        any_label_is_asked_for: "{parts} of {all_parts} wrong: where questions are learned there are labels, too, and "
        "the check asks only whether there are any. Whose they are it cannot know: Guanaco learned questions as well.",
        moved_unseen: "{parts} of {all_parts} wrong: labels that lie one place too early leave the last end of an "
        "answer without one, while the token before it has one. Is there a trap of that kind?",
        every_answer_is_asked_for: "{parts} of {all_parts} wrong: `end_cut_off` asks whether an answer begins "
        "behind the last end of the row. Here the last answer has one. (Guanaco's script wrote its ends like that.)",
        masked_where_there_is_no_end: "{parts} of {all_parts} wrong: `end_masked` needs an end that stands in the "
        "row and has no label. Here the first answer has no end at all.",
        beginning_is_asked_for: "{parts} of {all_parts} wrong: `template_mismatch` asks whether an answer begins as "
        "the template writes it. That the question before it is cut, it does not see.",
        second_end_unseen: "{parts} of {all_parts} wrong: behind an end the template writes a new turn, or "
        "nothing. A second end is a special token where none belongs.",
        linear_has_a_warm_up: "{parts} of {all_parts} wrong: `linear` has a warm-up, but one of 20 steps in a run "
        "of 20 never reaches the full rate.",
        everything_is_found: "{parts} of {all_parts} wrong: a check was expected to see what is meant. It asks "
        "simple things: is there a label, does the last answer have an end, does an answer begin as it should?",
        nothing_is_found: "{parts} of {all_parts} wrong: something is found in some.",
    },
    hints=(
        "Read `WAYS_OUT` once more, and take it by the letter. Ask of each "
        "set-up which of the traps it steps into. Four of the seven step into none.",
        "Ends: the check looks at the last end of a row, at ends without a label behind a token with one, and at "
        "special tokens where the template writes none. Warm-up: does the rate reach its full value inside the run?",
    ),
    alternatives=(looked,),
)
