"""What text, and which labels, does the model see? Trees become threads, threads become tokens with a loss mask."""

import html
from collections.abc import Iterable

from IPython.display import HTML
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils.trees import Message

Turn = dict[str, str]  # {"role": "user" | "assistant", "content": ...}, as chat templates expect it
Example = dict[str, list[int]]  # {"input_ids": ..., "labels": ...}, both of the same length in tokens

IGNORE = -100  # label of a token that the loss skips (torch.nn.functional.cross_entropy)
ROLE_NAMES = {"prompter": "user", "assistant": "assistant"}

# Guanaco's text (QLoRA repository, openassistant-guanaco data) has no newline between turns. One thing is added: the
# end-of-sequence token after every answer, where the model has to stop. The generation marks say what is an answer.
GUANACO = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}### Human: {{ message['content'] }}"
    "{% else %}### Assistant:{% generation %} {{ message['content'] }}{{ eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:{% endif %}"
)
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}{{ '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"
)
TEMPLATES = {"guanaco": GUANACO, "chatml": CHATML}


def top_thread(tree: Message, worst: bool = False) -> list[Turn]:
    """One conversation out of a tree: at every turn the best-ranked reply, as Guanaco was made (QLoRA, section 5.1).

    With `worst`, the worst-ranked reply instead. The thread ends with an answer, so a last unanswered question is
    left out.
    """
    thread, message = [tree], tree
    while message.replies:
        ranked = message.role == "prompter" and worst
        message = message.replies[-1 if ranked else 0]
        thread.append(message)
    if thread[-1].role == "prompter":
        thread.pop()
    return [{"role": ROLE_NAMES[message.role], "content": message.text} for message in thread]


def render(
    thread: list[Turn], tokenizer: PreTrainedTokenizerBase, template: str = "guanaco", *, ask: bool = False
) -> str:
    """The text of a thread; with `ask`, ready for the model's next answer."""
    return tokenizer.apply_chat_template(
        thread, chat_template=_template(template), tokenize=False, add_generation_prompt=ask
    )


def encode(
    thread: list[Turn],
    tokenizer: PreTrainedTokenizerBase,
    template: str = "guanaco",
    *,
    train_on: str = "answers",
    max_length: int | None = None,
) -> Example:
    """Token ids and labels of a thread.

    Args:
        thread: turns, user first.
        template: "guanaco" or "chatml".
        train_on: "answers" gives -100 to every token that is not an answer or its end-of-sequence token; "all" labels
            every token, as Guanaco did (QLoRA, section 5.1).
        max_length: in tokens; what lies beyond is cut off.

    Raises:
        ValueError: unknown template or `train_on`, or no token is left to train on.
    """
    if train_on not in ("answers", "all"):
        raise ValueError(f"Unknown train_on {train_on!r}; choose 'answers' or 'all'.")
    encoded = tokenizer.apply_chat_template(
        thread,
        chat_template=_template(template),
        return_dict=True,
        return_assistant_tokens_mask=True,
        truncation=max_length is not None,
        max_length=max_length,
    )
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    labels = [token if answer or train_on == "all" else IGNORE for token, answer in zip(ids, mask, strict=True)]
    if all(label == IGNORE for label in labels[1:]):
        raise ValueError(
            f"No token is left to train on (max_length={max_length}, {len(ids)} tokens kept): the loss would be nan or "
            f"zero. Raise max_length or drop this thread: {thread[0]['content'][:60]!r}..."
        )
    return {"input_ids": ids, "labels": labels}


def encode_all(threads: Iterable[list[Turn]], tokenizer: PreTrainedTokenizerBase, **options: object) -> list[Example]:
    """`encode` each thread; those too long for `max_length` are left out whole, so that no answer loses its end."""
    limit = options.pop("max_length", None)
    examples = [encode(thread, tokenizer, **options) for thread in threads]
    return [example for example in examples if limit is None or len(example["input_ids"]) <= limit]


def question(prompt: str, answer: str | None = None) -> list[Turn]:
    """A thread of one question, with its answer if there is one."""
    thread = [{"role": "user", "content": prompt}]
    return thread if answer is None else [*thread, {"role": "assistant", "content": answer}]


def as_html(thread: list[Turn]) -> HTML:
    """A conversation as speech bubbles, for a notebook."""
    look = "padding:.4em .8em;border-radius:.8em;margin:.3em;max-width:36em;width:fit-content;color:#111;"
    sides = {"user": "background:#d9ecf7;margin-left:auto", "assistant": "background:#eee"}
    bubbles = [
        f'<div style="{look}{sides[turn["role"]]}"><b>{turn["role"]}</b><br>{html.escape(turn["content"])}</div>'
        for turn in thread
    ]
    return HTML("".join(bubbles))


def _template(name: str) -> str:
    if name not in TEMPLATES:
        raise ValueError(f"Unknown template {name!r}; choose from {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]
