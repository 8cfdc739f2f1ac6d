"""Where the course lies is known in one place, and nothing is half-written."""

import os

import pytest

from course_utils.core import files


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "page.html"
    files.write_whole(path, "old")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "old"


def test_data_lies_inside_an_installed_package_and_beside_that_of_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setattr(files, "PACKAGE", tmp_path / "course_utils")
    assert files.data_dir() == tmp_path / "data"
    (tmp_path / "course_utils" / "data").mkdir(parents=True)
    assert files.data_dir() == tmp_path / "course_utils" / "data"


def test_a_command_that_needs_the_notebooks_says_so_where_there_are_none(monkeypatch, tmp_path):
    files.require_clone("make lab")
    monkeypatch.setattr(files, "PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit, match="^make lab needs the notebooks, and an installed package has none"):
        files.require_clone("make lab")


def test_notebooks_are_the_lessons_in_their_order_and_then_their_deeper_halves():
    lessons = ["01_lora", "02_peft", "03_qlora", "04_guanaco_sft"]
    assert [path.stem for path in files.lessons()] == lessons
    deeper = ["01_why_lora", "02_placement", "03_memory", "04_judging"]
    assert [path.stem for path in files.notebooks()] == [*lessons, *deeper]
    numbers = ["01", "02", "03", "04"]
    both = [(folder, number) for folder in ("exercises", "solutions") for number in numbers]
    assert [(path.parent.name, path.stem) for path in files.workbooks()] == both
    assert [path.parent.name for path in files.workbooks("solutions")] == ["solutions"] * len(numbers)


def test_a_notebook_that_is_not_there_names_those_that_are(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no notebook '05'; choose from 01_lora, 02_peft"):
        files.notebook("05")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="choose from none"):
        files.notebook("01_lora")
