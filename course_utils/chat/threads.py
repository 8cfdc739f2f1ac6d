"""Who said what? Threads in the shapes in which they are published become checked turns with known roles."""

from collections.abc import Collection, Iterable, Mapping

from course_utils.core.rows import half_character

Turn = dict[str, str]  # {"role": "user" | "assistant" | ..., "content": ...}

# What OASST (prompter), ShareGPT (human, gpt, chatgpt, bot) and Gemma (model) call the two speakers.
ALIASES = dict.fromkeys(("prompter", "human"), "user") | dict.fromkeys(("gpt", "chatgpt", "bot", "model"), "assistant")


def normalized(thread: Iterable[Mapping], roles: Collection[str] | None = None, index: int | None = None) -> list[Turn]:
    """The turns of a thread with checked contents and usual role names; ShareGPT's `from` and `value` are read as well.

    Args:
        thread: dicts with `role` and `content`, or `from` and `value`.
        roles: those allowed; None, for showing a thread, allows every role, and blank text.
        index: the thread's among others, for error messages.

    Raises:
        ValueError: no turns, a role that is not among `roles`, or content that is not text.
    """
    where = "Thread" if index is None else f"Thread {index}"
    if isinstance(thread, (str, Mapping)) or not isinstance(thread, Iterable):
        raise ValueError(f"{where}: expected a list of turns, found {type(thread).__name__}. {_way_out(thread, index)}")
    turns = [_turn(turn, roles, f"{where}, turn {number} (counted from 0)") for number, turn in enumerate(thread)]
    if not turns:
        raise ValueError(f"{where} has no turns. Leave it out; a tree that nobody answered gives such a thread.")
    return turns


def _way_out(thing: object, index: int | None) -> str:
    """What to pass instead of something that is no thread."""
    if isinstance(thing, str):
        return "A single question becomes a thread by chat.question(text)."
    if index is not None:
        return "If this is one thread alone, put it into a list: [thread]."
    if isinstance(thing, Mapping):
        return "Pass the list itself, for example row['messages'] or row['conversations']."
    return "chat.top_thread(tree) takes one out of a tree of messages."


def _turn(turn: Mapping, roles: Collection[str] | None, where: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{where}: expected {{'role': ..., 'content': ...}}, found {type(turn).__name__}.")
    pairs = (("role", "from"), ("content", "value"))
    role, content = (turn.get(name) if turn.get(name) is not None else turn.get(other) for name, other in pairs)
    if not isinstance(role, str):
        raise ValueError(f"{where}: the role is missing or not text: {role!r}. Name it 'user' or 'assistant'.")
    role = ALIASES.get(role, role)
    if roles is not None and role not in roles:
        raise ValueError(
            f"{where}: the template has no role {role!r}. Its roles are {', '.join(map(_with_aliases, roles))}. Leave "
            "the turn out, or choose a template that has the role."
        )
    problem = text_problem(content)
    if problem and (roles is not None or not isinstance(content, str)):
        raise ValueError(f"{where}, {role}: the content {problem}")
    return {"role": role, "content": content}


def _with_aliases(role: str) -> str:
    others = [alias for alias, meant in ALIASES.items() if meant == role]
    return f"{role} (also {', '.join(others)})" if others else role


def text_problem(content: object) -> str | None:
    """What keeps `content` from being text to learn or to ask, and what to do; None if nothing does."""
    if isinstance(content, (list, tuple)):
        return "is a list of parts, not text. Join its text parts into one string."
    if not isinstance(content, str):
        return f"is missing or not text: {content!r}. Put a string there, or leave out what has no text."
    if not content.strip():
        return f"is blank: {content!r}. Put text there, or leave out what has none."
    if half_character(content) is not None:
        return (
            "holds half of a character (often of an emoji that was cut). Read the data again with its right encoding."
        )
    return None
