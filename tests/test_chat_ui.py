"""A conversation is shown as it is, whatever its speakers are called, and makes no markup of its own."""

import builtins
import sys

import pytest
import yaml

from course_utils import chat_ui, datafiles, evaluation, loading
from course_utils.loading import cache
from tests.conftest import tiny, toy_tokenizer

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


def test_where_no_html_is_shown_the_conversation_is_text():
    assert (
        repr(chat_ui.as_html([{"from": "human", "value": "a < b?"}, *THREAD[1:]])) == "user: a < b?\nassistant: Hello."
    )


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


def types(monkeypatch, *lines: str) -> None:
    """What somebody types, and then the end of input."""
    left = iter(lines)

    def typed(_):
        if (line := next(left, None)) is None:
            raise EOFError
        return line

    monkeypatch.setattr(builtins, "input", typed)


def chats(monkeypatch, *lines: str) -> None:
    """Somebody types to a tiny model, without an adapter."""
    types(monkeypatch, *lines)
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: tiny(49152))
    monkeypatch.setattr(loading, "load_adapter", lambda model, _: model)


def test_in_a_terminal_one_can_ask_begin_again_and_stop(tokenizer, monkeypatch, capsys):
    asked = []
    chats(monkeypatch, "Hi?", "", "Why?", "/new", "Well?")
    monkeypatch.setattr(chat_ui, "encode_prompt", lambda thread, *_: asked.append(len(thread)) or [5, 6])
    chat_ui.main([])
    assert asked == [1, 3, 1]
    assert capsys.readouterr().out.count("\n") >= 3


def test_a_question_that_cannot_be_asked_does_not_end_the_chat(tokenizer, monkeypatch, capsys):
    chats(monkeypatch, "\ud83d", "Hi?")
    monkeypatch.setattr(chat_ui.Session, "_written", lambda *_: iter(["Hello."]))
    chat_ui.main([])
    said = capsys.readouterr()
    assert "half of a character" in said.err
    assert said.out.split() == ["Hello."]


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "default_stage: {}\n", "model: 3\nprecision: nf4\ntemplate: chatml\n"]
)
def test_what_is_no_recipe_is_not_used(tmp_path, capsys, text):
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    assert chat_ui._recipe_of(tmp_path) == {}
    assert "recipe.yaml is no recipe of a training here; it is not used." in capsys.readouterr().err


def test_a_template_without_its_end_is_refused_before_the_first_question(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: tiny())
    monkeypatch.setattr(loading, "load_tokenizer", lambda *_, **__: toy_tokenizer())
    with pytest.raises(SystemExit, match="no end-of-sequence token"):
        chat_ui.main(["--model", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        ("", (cache.NAME, "nf4-dq", str(datafiles.shipped_adapter()), "guanaco")),
        ("--precision fp32", (cache.NAME, "fp32", str(datafiles.shipped_adapter()), "guanaco")),
        ("--adapter bare", (cache.NAME, "fp32", "bare", "guanaco")),
        ("--adapter bare --precision nf4", (cache.NAME, "nf4", "bare", "guanaco")),
        ("--adapter mine", ("its-base", "nf4", "mine", "chatml")),
        ("--adapter mine --precision fp32", ("its-base", "fp32", "mine", "chatml")),
        ("--adapter mine --template guanaco", ("its-base", "nf4", "mine", "guanaco")),
        ("--model other", ("other", "fp32", None, "guanaco")),
        ("--model other --adapter mine", ("other", "nf4", "mine", "chatml")),
        ("--model mine", ("mine", "fp32", None, "chatml")),
    ],
)
def test_one_talks_to_the_shipped_adapter_on_the_base_it_was_trained_on_unless_one_names_another(
    tokenizer, monkeypatch, capsys, tmp_path, arguments, loaded
):
    """Base, format and template are those of the recipe that training left beside the adapter, if it is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    written = {"model": "its-base", "revision": "v2", "precision": "nf4", "template": "chatml", "steps": 1, "lr": 0.1}
    (tmp_path / "mine" / "recipe.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    found = {"adapter": None}

    def load_model(name, precision, revision):
        assert revision == ("v2" if name == "its-base" else None), "of the base that the recipe names"
        found.update(name=name, precision=precision)
        return tiny()

    class Session(chat_ui.Session):
        def __init__(self, model, tokenizer, template):
            found["template"] = template
            super().__init__(model, tokenizer, template)

    def load_adapter(model, folder):
        found["adapter"] = str(folder)
        return model

    monkeypatch.setattr(loading, "load_model", load_model)
    monkeypatch.setattr(loading, "load_tokenizer", lambda *_, **__: tokenizer)
    monkeypatch.setattr(loading, "load_adapter", load_adapter)
    monkeypatch.setattr(chat_ui, "Session", Session)
    types(monkeypatch)
    chat_ui.main(arguments.split())
    assert (found["name"], found["precision"], found["adapter"], found["template"]) == loaded
    said = capsys.readouterr().err
    assert ("trained in the template 'chatml', and is asked in 'guanaco'" in said) == (
        "--template guanaco" in arguments
    )
