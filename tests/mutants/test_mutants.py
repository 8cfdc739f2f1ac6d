"""Each fault that is planted in a copy of the course turns a test red."""

from dataclasses import replace

import pytest

from course_utils.core.files import PACKAGE, ROOT
from tests.mutants.faults import FAULTS, altered, noticed, plant

QUICK = [fault for fault in FAULTS if fault.quick]


def test_five_faults_are_planted_by_make_test():
    assert len(QUICK) == 5
    assert len({fault.file for fault in QUICK}) == 5, "one in each of five rooms"


@pytest.mark.slow
def test_the_quick_faults_turn_their_tests_red(tmp_path):
    """And their tests pass on an unchanged copy: otherwise red would prove nothing."""
    red = noticed(QUICK, tmp_path)
    assert [fault.name for fault, caught in zip(QUICK, red, strict=True) if not caught] == []


@pytest.mark.slow
def test_a_change_that_no_test_notices_is_reported(tmp_path):
    harmless = replace(
        FAULTS[0], new=FAULTS[0].old, caught_by="tests/mutants/test_mutants.py::test_names_are_told_apart"
    )
    assert noticed([harmless], tmp_path) == [False]


def test_a_fault_that_is_out_of_date_is_named(tmp_path):
    with pytest.raises(ValueError, match="occurs 0 times; the fault 'gone' is out of date"):
        plant(replace(FAULTS[0], name="gone", old="no such text"), tmp_path)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_can_be_planted(fault):
    """`make test` plants five of them: without this, the others could go out of date in silence."""
    assert altered(fault)


def test_names_are_told_apart():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_every_room_has_a_fault_that_a_test_notices():
    """A file of which nothing is checked could be anything; doors only hand names on, exercises record mistakes."""
    planted = {fault.file for fault in FAULTS}
    files = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    names_alone = {name for name in files if name.endswith("__init__.py")}
    exercises = {name for name in files if name.startswith("course_utils/exercises/") and name.count("/") > 2}
    assert files - planted - names_alone - exercises == {"course_utils/loading/__main__.py"}, (
        "two lines, run by `make model`"
    )
