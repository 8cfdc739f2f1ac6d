"""The handout says what the notebooks say, on two sheets, in gray, and needs no other file."""

import math
import re
from html import unescape

import pytest

from course_utils.course import handout
from tests.kit_text import KIT, OUT_OF_DATE, TEXTS

SHEET, WIDTH, LETTER, LINE = 279.4 - 24, 186, 1.7, 9 * 1.25 * 25.4 / 72  # mm; Letter is the shorter sheet


@pytest.fixture(scope="module")
def page() -> str:
    return handout.page()


def test_handout_is_current(page):
    assert (KIT / "handout.html").read_text(encoding="utf-8") == page, OUT_OF_DATE


def test_every_lesson_with_a_page_is_on_the_handout():
    assert set(handout.CHOSEN) == set(TEXTS)


def test_handout_needs_no_other_file_and_no_color(page):
    assert not re.search(r"//|url\(|@import|src=|href=|<script|<link", page)
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)[1]
    assert set(re.findall(r"\b(?:color|background|solid):? ([a-z#][\w(]*)", style)) == {"black", "white", "gray"}


def test_text_in_cells_is_text_and_markdown_in_them_is_html(page):
    rows = handout.settings("02_peft")
    assert ("<code>target_modules</code>", "written out, or <code>&quot;all-linear&quot;</code>", "M16") in rows
    assert "LoRA&#39;s best learning rate" in page
    assert "&lt;code&gt;" not in page


def height(lesson: str) -> float:
    """How far a lesson reaches down a sheet, in mm."""
    height = 0.0
    shares = [list(map(int, re.findall(r"width: (\d+)%", group))) for group in re.findall(r"<colgroup>.*", lesson)]
    bodies = re.findall(r"<table>(.*?)</table>", lesson, re.DOTALL)
    assert len(bodies) == 2
    for columns, body in zip(shares, bodies, strict=True):
        height += 5.5  # heading and margins
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL):
            texts = [unescape(re.sub(r"<[^>]+>", "", cell)) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
            room = [WIDTH * share / 100 - 2 for share in columns]
            height += 0.8 + LINE * max(math.ceil(LETTER * len(t) / w) for t, w in zip(texts, room, strict=True))
    return height


def test_handout_fits_on_two_sheets(page):
    """Two lessons on each. Lines of 9 point are counted, with room for letters of 1.7 mm, which is wide."""
    assert "h2:nth-of-type(3) { break-before: page }" in page
    lessons = page.split("<h2>")[1:]
    assert len(lessons) == len(handout.CHOSEN) == 4
    heights = list(map(height, lessons))
    assert 17 + heights[0] + heights[1] <= SHEET  # with title and introduction
    assert heights[2] + heights[3] <= SHEET
