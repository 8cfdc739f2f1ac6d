"""A conversation is shown as it is, whatever its speakers are called, and makes no markup of its own."""

import builtins
import sys

import pytest

from course_utils import chat_ui, datafiles, evaluation, loading
from tests.conftest import tiny

THREAD = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]


def test_html_shows_every_role_with_its_line_breaks():
    page = chat_ui.as_html([{"role": "tool", "content": "a < b\n    c"}, {"from": "gpt", "value": ""}]).data
    assert "<b>tool</b><br>a &lt; b\n    c</div>" in page
    assert "<b>assistant</b>" in page
    assert page.count("white-space:pre-wrap") == 2


def test_other_names_of_the_two_speakers_look_the_same():
    shared = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]
    assert chat_ui.as_html(shared).data == chat_ui.as_html(THREAD).data


def test_the_two_speakers_stand_on_two_sides():
    asked, answered = chat_ui.as_html(THREAD).data.split("</div>")[:2]
    assert "margin-left:auto" in asked
    assert "margin-left:auto" not in answered


def test_a_thread_without_turns_is_an_error():
    with pytest.raises(ValueError, match="Thread has no turns"):
        chat_ui.as_html([])


@pytest.fixture
def session(tokenizer):
    return chat_ui.Session(tiny(49152).train(), tokenizer, max_new_tokens=6)


def test_an_answer_in_pieces_is_the_greedy_answer_to_the_whole_conversation(session, tokenizer):
    asked = []
    for text in ("Hi?", "Why?"):
        asked.append({"role": "user", "content": text})
        expected = evaluation.generate(session.model, tokenizer, [asked], max_new_tokens=6)[0].text
        pieces = list(session.stream(text))
        assert "".join(pieces).strip() == expected
        assert session.thread == [*asked, {"role": "assistant", "content": expected}]
        asked = list(session.thread)
    assert all(part.training for part in session.model.modules()), "the mode is what it was"


def test_a_question_that_cannot_be_asked_leaves_the_conversation_as_it_was(session):
    session.ask("Hi?")
    before = list(session.thread)
    with pytest.raises(ValueError, match="blank"):
        session.ask(" ")
    assert session.thread == before


def test_what_fails_while_it_is_written_is_raised_and_not_waited_for(session, monkeypatch):
    def broken(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(session.model, "generate", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        session.ask("Hi?")
    assert session.thread == []


def test_the_panel_asks_shows_and_begins_again(session):
    pytest.importorskip("ipywidgets")
    shown, row = chat_ui.panel(session).children
    field, again = row.children
    field.value = "a < b?"
    assert [turn["role"] for turn in session.thread] == ["user", "assistant"]
    assert "a &lt; b?" in shown.value
    assert (field.value, field.disabled) == ("", False)
    again.click()
    assert (session.thread, shown.value) == ([], "")


def test_without_ipywidgets_the_conversation_is_shown(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert "session.ask" in chat_ui.panel(session).data
    session.ask("Hi?")
    assert "<b>user</b><br>Hi?" in chat_ui.panel(session).data


def test_in_a_terminal_one_can_ask_begin_again_and_stop(tokenizer, monkeypatch, capsys):
    asked, lines = [], iter(["Hi?", "", "Why?", "/new", "Well?"])

    def typed(_):
        if (line := next(lines, None)) is None:
            raise EOFError
        return line

    monkeypatch.setattr(builtins, "input", typed)
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: tiny(49152))
    monkeypatch.setattr(loading, "load_adapter", lambda model, _: model)
    monkeypatch.setattr(chat_ui, "encode_prompt", lambda thread, *_: asked.append(len(thread)) or [5, 6])
    chat_ui.main([])
    assert asked == [1, 3, 1]
    assert capsys.readouterr().out.count("\n") >= 3


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        ("", ([], "nf4-dq", str(datafiles.shipped_adapter()))),
        ("--precision fp32", ([], "fp32", str(datafiles.shipped_adapter()))),
        ("--adapter mine", ([], "fp32", "mine")),
        ("--adapter mine --precision nf4", ([], "nf4", "mine")),
        ("--model other", (["other"], "fp32", None)),
        ("--model other --adapter mine", (["other"], "fp32", "mine")),
    ],
)
def test_one_talks_to_the_shipped_adapter_on_the_base_it_was_trained_on_unless_one_names_another(
    tokenizer, monkeypatch, arguments, loaded
):
    found = {"adapter": None}

    def load_model(*names, precision):
        found.update(names=list(names), precision=precision)
        return tiny()

    def load_adapter(model, folder):
        found["adapter"] = str(folder)
        return model

    def ended(_):
        raise EOFError

    monkeypatch.setattr(loading, "load_model", load_model)
    monkeypatch.setattr(loading, "load_tokenizer", lambda *_: tokenizer)
    monkeypatch.setattr(loading, "load_adapter", load_adapter)
    monkeypatch.setattr(builtins, "input", ended)
    chat_ui.main(arguments.split())
    assert (found["names"], found["precision"], found["adapter"]) == loaded
