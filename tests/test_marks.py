"""Generated text goes between its marks, and nowhere else."""

import pytest

from course_utils.course import marks


def test_text_is_put_between_its_marks_and_read_again(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\nafter\n", encoding="utf-8")
    marks.put_between(page, "a", "1 \\1 | ü\n")
    marks.put_between(page, "b", "2\n")
    expected = "before\n<!-- a -->\n1 \\1 | ü\n<!-- /a -->\n<!-- b -->\n2\n<!-- /b -->\nafter\n"
    assert page.read_text(encoding="utf-8") == expected
    assert [marks.between(page, mark) for mark in "ab"] == ["1 \\1 | ü\n", "2\n"]


def test_a_page_without_marks_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- a -->\nnever closed\n", encoding="utf-8")
    for call in (lambda: marks.between(page, "a"), lambda: marks.put_between(page, "a", "new")):
        with pytest.raises(ValueError, match=r"page.md: no lines '<!-- a -->' and '<!-- /a -->'"):
            call()
    assert page.read_text(encoding="utf-8") == "<!-- a -->\nnever closed\n"
