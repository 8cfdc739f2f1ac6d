"""How do I talk to a model, and see a conversation? In a notebook, with or without widgets, and in a terminal.

In a terminal::

    python -m course_utils.chat_ui                     # the course's adapter
    python -m course_utils.chat_ui --adapter FOLDER    # another one

on the base, in the format and in the template of the recipe that training left beside it, where none is given.
/new begins again, the end of input (Ctrl-D) ends it.
"""

import argparse
import contextlib
import html
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch
import yaml
from IPython.display import HTML
from torch import nn
from transformers import TextIteratorStreamer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import datafiles, loading
from course_utils.chat import TEMPLATES, Turn, encode_prompt, end_id, normalized, question
from course_utils.core import console, files
from course_utils.core.mode import evaluating
from course_utils.loading.cache import NAME

if TYPE_CHECKING:
    import ipywidgets


class Conversation(HTML):
    """Speech bubbles; where no HTML is shown, the same as text."""

    def __init__(self, thread: list[Turn]) -> None:
        super().__init__(_bubbles(thread))
        self.text = "\n".join(f"{turn['role']}: {turn['content']}" for turn in normalized(thread))

    def __repr__(self) -> str:
        return self.text


def as_html(thread: list[Turn]) -> Conversation:
    """A conversation as speech bubbles, for a notebook; other roles than user and assistant stand in the middle."""
    return Conversation(thread)


class Session:
    """A conversation with a model, which always sees all of it; its answers are greedy.

    Args:
        template: the one that the model was trained in.
        max_new_tokens: an answer that is longer is cut off.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        template: str = "guanaco",
        max_new_tokens: int = 128,
    ) -> None:
        self.model, self.tokenizer, self.template, self.max_new_tokens = model, tokenizer, template, max_new_tokens
        self.thread: list[Turn] = []

    def stream(self, text: str) -> Iterator[str]:
        """Ask, and get the answer in pieces, as it is written; with the last one, both turns are in `thread`.

        Raises:
            ValueError: the question is blank, or as `chat.encode_prompt`; the conversation is as it was before.
        """
        asked = [*self.thread, *question(text)]
        prompt = encode_prompt(asked, self.tokenizer, self.template)
        answer = ""
        for piece in self._written(prompt):
            answer += piece
            yield piece
        self.thread = [*asked, {"role": "assistant", "content": answer.strip() or "..."}]

    def ask(self, text: str) -> str:
        """Ask, and get the whole answer."""
        for _ in self.stream(text):
            pass
        return self.thread[-1]["content"]

    def _written(self, prompt: list[int]) -> Iterator[str]:
        """The text behind a prompt; the model writes in a thread of its own, and is left in the mode it was in."""
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        end = end_id(self.tokenizer, self.template)
        how = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "eos_token_id": end, "pad_token_id": end}
        failed: list[BaseException] = []

        def write(ids: torch.Tensor) -> None:
            seen = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            try:
                self.model.generate(**seen, **how, max_new_tokens=self.max_new_tokens, streamer=streamer)
            except BaseException as error:  # it would be lost in the thread, and the reader wait forever
                failed.append(error)
                streamer.end()

        with evaluating(self.model) as device:
            writer = Thread(target=write, args=[torch.tensor([prompt], device=device)], daemon=True)
            writer.start()
            try:
                yield from streamer
            finally:
                writer.join()
        if failed:
            raise failed[0]


def panel(session: Session) -> "ipywidgets.VBox | HTML":
    """A field to ask in, below the conversation, which grows as the answer is written.

    Without ipywidgets, the conversation as it stands: `session.ask(text)` goes on with it.
    """
    try:
        import ipywidgets
    except ImportError:
        return as_html(session.thread or [{"role": "note", "content": "session.ask(...) asks; ipywidgets is missing."}])
    shown = ipywidgets.HTML(_bubbles(session.thread) if session.thread else "")
    field = ipywidgets.Text(placeholder="Ask, and press Enter", continuous_update=False)
    again = ipywidgets.Button(description="Begin again")

    def asked(change: dict[str, str]) -> None:
        text, answer = change["new"].strip(), ""
        if not text:
            return
        field.value, field.disabled = "", True
        try:
            for piece in session.stream(text):
                answer += piece
                shown.value = _bubbles([*session.thread, *question(text, answer)])
            shown.value = _bubbles(session.thread)
        finally:
            field.disabled = False

    def begin(_: object) -> None:
        session.thread, shown.value = [], ""

    field.observe(asked, "value")
    again.on_click(begin)
    return ipywidgets.VBox([shown, ipywidgets.HBox([field, again])])


def _bubbles(thread: list[Turn]) -> str:
    look = "padding:.4em .8em;border-radius:.8em;margin:.3em;max-width:36em;width:fit-content;color:#111;"
    sides = {"user": "background:#d9ecf7;margin-left:auto", "assistant": "background:#eee"}
    bubbles = [
        f'<div style="{look}white-space:pre-wrap;{sides.get(turn["role"], "background:#fbf3d5;margin:.3em auto")}">'
        f"<b>{html.escape(turn['role'])}</b><br>{html.escape(turn['content'])}</div>"
        for turn in normalized(thread)
    ]
    return "".join(bubbles)


def _recipe_of(folder: str | Path) -> dict[str, Any]:
    """By what it was trained: the recipe that lies beside it; empty for what has none, such as a name of the hub."""
    path, recipe = Path(folder).expanduser() / files.RECIPE, None
    if not path.is_file():
        return {}
    with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    fits = isinstance(recipe, dict) and isinstance(recipe.get("model"), str)
    if fits and recipe.get("precision") in loading.PRECISIONS and recipe.get("template") in list(TEMPLATES):
        return recipe
    print(f"{path} is no recipe of a training here; it is not used.", file=sys.stderr)
    return {}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    console.accept_all()
    parser = argparse.ArgumentParser(prog="python -m course_utils.chat_ui", description="Talk to a model.")
    parser.add_argument(
        "--model", help="a hub id or a folder; by default that of the adapter's recipe, or the course's"
    )
    parser.add_argument("--adapter", help="the folder of an adapter, which is put on the model")
    parser.add_argument("--precision", choices=loading.PRECISIONS, help="of the base")
    parser.add_argument("--template", choices=TEMPLATES, help="in which to ask")
    given = parser.parse_args(arguments)
    adapter = given.adapter or (None if given.model else datafiles.shipped_adapter())
    try:
        recipe = _recipe_of(adapter or given.model)
        name, revision = (given.model, None) if given.model else (recipe.get("model", NAME), recipe.get("revision"))
        precision = given.precision or (recipe.get("precision") if adapter else None) or "fp32"
        model = loading.load_model(name, precision, revision=revision)
        tokenizer = loading.load_tokenizer(name, revision=revision)
        if adapter:
            model = loading.load_adapter(model, adapter)
        taught = recipe.get("template", "guanaco")
        session = Session(model, tokenizer, given.template or taught)
        end_id(tokenizer, session.template)
    except (OSError, ValueError, loading.ModelCacheError) as error:
        sys.exit(f"{parser.prog}: {error}")
    if recipe and session.template != taught:
        print(f"It was trained in the template {taught!r}, and is asked in {session.template!r}.", file=sys.stderr)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            text = input("you> ").strip()
            if text == "/new":
                session.thread = []
            elif text:
                try:
                    for piece in session.stream(text):
                        print(piece, end="", flush=True)
                except ValueError as error:  # the question cannot be asked; the next one may
                    print(error, file=sys.stderr)
                print()


if __name__ == "__main__":
    main()
