"""The notebook checks go red on every kind of bad notebook, and stay green on a good one."""

import textwrap

import nbformat
import pytest
from nbformat import v4

from course_utils.claims import VERDICTS_TYPE
from tests.notebooks.strict_nbval import same_text, structure_problems

pytest_plugins = ["pytester"]


def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return v4.new_output("stream", name=name, text=text)


def cell(source: str, count: int | None, *outputs: nbformat.NotebookNode, **metadata: object) -> nbformat.NotebookNode:
    return v4.new_code_cell(source, execution_count=count, outputs=list(outputs), metadata=metadata)


def notebook(*cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return v4.new_notebook(cells=list(cells), metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


GOOD = [cell("x = 1 + 1", 1), cell("print(x, 0.5)", 2, stream("2 0.5\n"))]


@pytest.fixture
def outcomes(pytester: pytest.Pytester, request: pytest.FixtureRequest):
    """Run a notebook through pytest as the course does, and count what happened."""

    def run(*cells: nbformat.NotebookNode) -> dict[str, int]:
        nbformat.write(notebook(*cells), pytester.path / "made.ipynb")
        pytester.makeconftest(
            textwrap.dedent(f"""
            import sys
            sys.path.insert(0, {str(request.config.rootpath)!r})
            pytest_plugins = ["tests.notebooks.strict_nbval"]
            """)
        )
        options = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout=60", "-p", "no:cacheprovider")
        counts = pytester.runpytest_subprocess(*options).parseoutcomes()
        counts.pop("warnings", None)  # how many there are depends on the versions of the Jupyter packages
        return counts

    return run


def test_good_notebook_passes(outcomes):
    assert outcomes(*GOOD) == {"passed": 3}


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("unexecuted", [cell("x = 1", None)]),
        ("stripped", [cell("print(1)", None), cell("print(2)", None)]),
        ("out of order", [cell("x = 1", 2), cell("x = 2", 1)]),
        ("not from one", [cell("x = 1", 7)]),
        ("opt-out without reason", [*[cell("", n) for n in range(1, 11)], cell("1", 11, tags=["nbval-ignore-output"])]),
        ("too many opt-outs", [cell("x = 1", 1, tags=["nbval-ignore-output"], reason="chance")]),
        ("no such tolerance", [cell("x = 1", 1, tags=["rtol=1.2.3"])]),
        ("tolerance over the ceiling", [cell("x = 1", 1, tags=["rtol=0.11"], reason="whatever")]),
        ("tolerance that needs a reason", [cell("x = 1", 1, tags=["rtol=0.011"])]),
        ("marker in a comment", [cell("# NBVAL_IGNORE_OUTPUT\nx = 1", 1)]),
        ("skipped by a tag", [cell("x = 1", 1, tags=["nbval-skip"])]),
        ("install in a later cell", [cell("x = 1", 1), cell("!pip install nothing", 2)]),
        ("stored error", [cell("1/0", 1, v4.new_output("error", ename="E", evalue="", traceback=[]))]),
        ("endless output", [cell("x = 1", 1, stream("a" * 200_000))]),
    ],
)
def test_bad_structure_is_red(name, cells):
    assert structure_problems(notebook(*cells)), name


@pytest.mark.parametrize(
    "cells",
    [
        GOOD,
        [cell("x = 1", 1, tags=["rtol=1e-2"])],
        [cell("x = 1", 1, tags=["rtol=0.1"], reason="the digits depend on the order of summation")],
    ],
)
def test_good_structure_is_green(cells):
    assert structure_problems(notebook(*cells)) == []


def test_after_a_difference_the_rest_is_compared(outcomes):
    result = outcomes(cell("print(1)", 1, stream("2\n")), cell("print(3)", 2, stream("3\n")))
    assert result == {"failed": 1, "passed": 2}


def test_structure_failure_turns_the_run_red(outcomes):
    assert outcomes(cell("x = 1", None)).get("failed") == 1


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        ("print(3)", "2\n"),  # an integer is off by one
        ("print(0.5004)", "0.5\n"),  # a float is outside the tolerance
        ("print('lower')", "higher\n"),
        ("x = 1", "2\n"),  # an output is missing
    ],
)
def test_wrong_output_is_red(outcomes, source, stored):
    assert outcomes(cell(source, 1, stream(stored))).get("failed") == 1


def test_tolerance_tag_and_stderr(outcomes):
    source = "import sys; print(0.5004); print('bar', 17, file=sys.stderr)"
    made = cell(source, 1, stream("0.5\n"), stream("bar 12\n", "stderr"), tags=["rtol=1e-3"])
    assert outcomes(made) == {"passed": 2}


def test_the_list_of_verdicts_repeats_a_measurement_without_comparing_it_again(outcomes):
    """A claim is compared in the cell that measured it, with that cell's tolerance; verdicts are compared twice."""
    source = f"display({{'text/plain': '1 seen here', {VERDICTS_TYPE!r}: [{{'measured': '0.191'}}]}}, raw=True)"
    output = v4.new_output("display_data", data={"text/plain": "1 seen here", VERDICTS_TYPE: [{"measured": "0.195"}]})
    assert outcomes(cell(source, 1, output)) == {"passed": 2}
    output.data["text/plain"] = "1 partly seen here"
    assert outcomes(cell(source, 1, output)).get("failed") == 1


def test_dead_kernel_fails_at_once_and_the_rest_is_skipped(outcomes):
    result = outcomes(cell("import os; os._exit(1)", 1), cell("x = 1", 2), cell("x = 2", 3))
    assert (result["failed"], result["skipped"]) == (1, 2)


def test_after_an_exception_the_rest_is_skipped(outcomes):
    result = outcomes(cell("1 / 0  # Cell outputs differ", 1), cell("x = 1", 2))
    assert (result["failed"], result["skipped"]) == (1, 1)


@pytest.mark.parametrize(
    ("a", "b", "rtol", "same"),
    [
        ("loss 0.3", "loss 0.30000000000000004", 1e-6, True),
        ("loss 0.30", "loss 0.31", 1e-3, False),
        ("12 of 60", "13 of 60", 0.1, False),
        ("1e-5", "1.0e-05", 1e-6, True),
        ("a 1.0", "b 1.0", 0.1, False),
        ("-0.5", "0.5", 1e-6, False),
        # No character of a text stands for a number.
        ("loss 0.5", "loss #", 0.1, False),
        ("3 of 61", "# of 3", 0.1, False),
        ("### Human", "##7 Human", 0.1, False),
        ("1 2", "1 2 3", 0.1, False),
        # At a rounding edge: one unit of the last digit, where three or more digits are printed (zeros in front do not
        # count), and 1e-12 next to zero. Larger than that is a difference.
        ("3.95", "3.96", 1e-6, True),
        ("1.00", "1.01", 1e-6, True),
        ("0.0995", "0.0996", 1e-6, True),
        ("0.099", "0.100", 1e-6, True),
        ("99.2 %", "99.3 %", 1e-6, True),
        ("1.00e-05", "9.99e-06", 1e-6, True),
        ("3.95", "3.97", 1e-6, False),
        ("0.05", "0.06", 1e-6, False),
        ("0.050", "0.051", 1e-6, False),
        ("0.000", "0.001", 1e-6, False),
        ("0.3", "0.39999999999999997", 1e-6, False),
        ("0.092", "0.0921", 1e-6, True),
        ("1.2e-17", "0.0", 1e-6, True),
        ("-1.2e-17", "0.0", 1e-6, True),
        ("1.2e-11", "0.0", 1e-6, False),
        # Whole numbers, dates and versions are exact.
        ("395", "396", 0.1, False),
        ("1987-03-02", "1987-03-03", 0.1, False),
        ("02.03.1987", "03.03.1987", 0.1, False),
        ("torch 2.13.0", "torch 2.14.0", 0.1, False),
    ],
)
def test_same_text(a, b, rtol, same):
    assert same_text(a, b, rtol) is same
    assert same_text(b, a, rtol) is same
