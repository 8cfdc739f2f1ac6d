"""What do the data files hold, in numbers? The statistics that the datasheet quotes."""

from collections import Counter
from collections.abc import Iterable
from statistics import mean

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat
from course_utils.core import files
from course_utils.datafiles import (
    SPLITS,
    Message,
    load_conversations,
    load_passages,
    load_prompts,
    load_task,
    split_of,
)


def answers(trees: Iterable[Message]) -> list[Message]:
    """All assistant messages of some trees."""
    return [message for tree in trees for message in tree.walk() if message.role == "assistant"]


def turns(tree: Message) -> int:
    """Number of user turns on the longest path."""
    longest, stack = 0, [(tree, 0)]
    while stack:
        message, asked = stack.pop()
        asked += message.role == "prompter"
        longest = max(longest, asked)
        stack += [(reply, asked) for reply in message.replies]
    return longest


def describe(tokenizer: PreTrainedTokenizerBase) -> str:
    """Counts, categories and lengths of all data files, as text. Lengths in tokens of `tokenizer`."""
    trees = load_conversations()
    replies = answers(trees)
    best, worse = ([m for m in replies if (m.rank == 0) is first] for first in (True, False))
    threads = [chat.encode(chat.top_thread(tree), tokenizer)["input_ids"] for tree in trees]
    offered = Counter(len(m.replies) for tree in trees for m in tree.walk() if m.role == "prompter")

    def length(messages: Iterable[Message]) -> str:
        lengths = [len(tokenizer(message.text)["input_ids"]) for message in messages]
        return f"mean {mean(lengths):.1f}, longest {max(lengths)} tokens"

    lines = [
        f"conversations: {len(trees)} trees, {sum(1 for tree in trees for _ in tree.walk())} messages",
        f"  splits           {_counts(Counter(split_of(tree.message_id) for tree in trees), SPLITS)}",
        f"  categories       {_counts(Counter(tree.extra['category'] for tree in trees))}",
        f"  languages        {_counts(Counter(tree.lang for tree in trees))}",
        f"  user turns       {_counts(Counter(turns(tree) for tree in trees))}",
        f"  branching trees  {sum(any(len(m.replies) > 1 for m in answers([tree])) for tree in trees)}",
        f"  replies offered  {_counts(offered)}",
        f"  best replies     {len(best)}: {length(best)}",
        f"  worse replies    {len(worse)}: {length(worse)}",
        f"  flaws            {_counts(Counter(m.extra['flaw'] for m in worse))}",
        f"  top threads      mean {mean(map(len, threads)):.1f}, longest {max(map(len, threads))} tokens",
        f"prompts: {len(load_prompts())}, {_counts(Counter(prompt['category'] for prompt in load_prompts()))}",
    ]
    passages = [len(tokenizer(text)["input_ids"]) for text in load_passages()]
    lines.append(f"passages: {len(passages)}, {min(passages)} to {max(passages)} tokens")
    for path in sorted((files.data_dir() / "tasks").glob("*.jsonl")):
        sizes = {split: len(load_task(path.stem, split)) for split in SPLITS}
        lines.append(f"task {path.stem}: {_counts(sizes)}")
    return "\n".join(lines)


def _counts(counter: dict[object, int], order: Iterable[object] | None = None) -> str:
    keys = order or sorted(counter, key=lambda key: (-counter[key], str(key)))
    return ", ".join(f"{key} {counter[key]}" for key in keys)
