"""A conversation is shown as it is, whatever its speakers are called, and makes no markup of its own."""

import pytest

from course_utils import chat_ui

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
