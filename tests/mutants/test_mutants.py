"""Each fault that is planted in a copy of the course turns a test red."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.mutants.faults import FAULTS, goes_red, plant


@pytest.mark.slow
def test_every_fault_turns_its_test_red(tmp_path):
    folders = [tmp_path / str(number) for number in range(len(FAULTS))]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        red = list(pool.map(goes_red, FAULTS, folders))
    assert [fault.name for fault, caught in zip(FAULTS, red, strict=True) if not caught] == []


@pytest.mark.slow
def test_a_copy_without_a_fault_stays_green(tmp_path):
    """Otherwise red would prove nothing: each of these tests passes on an unchanged copy."""
    for number, test in enumerate(sorted({fault.caught_by for fault in FAULTS})):
        harmless = replace(FAULTS[0], new=FAULTS[0].old, caught_by=test)
        (tmp_path / str(number)).mkdir()
        assert not goes_red(harmless, tmp_path / str(number)), test


def test_a_fault_that_is_out_of_date_is_named(tmp_path):
    with pytest.raises(ValueError, match="occurs 0 times; the fault 'gone' is out of date"):
        plant(replace(FAULTS[0], name="gone", old="no such text"), tmp_path)
