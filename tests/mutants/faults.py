"""The faults: what is changed where, and the test that has to notice.

A fault that no test notices is a missing test. `python -m tests.mutants` (or `make mutants`) plants them all and prints
a table; `make test` plants the five that are marked `quick`. The list is at the end: new faults are appended there.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent.parent
PARTS = (
    "course_utils data notebooks tests conftest.py pyproject.toml requirements.txt environment.yml README.md".split()
)
LORA, LESSONS = "notebooks/01_lora.ipynb", "tests/test_lessons.py"
KAIMING = "nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))"


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in `file`; `caught_by` is the test as pytest names it; `make test` plants the quick ones."""

    name: str
    file: str
    old: str
    new: str
    caught_by: str
    quick: bool = False


def copy_course(copy: Path) -> None:
    """Copy what the tests need to the folder `copy`."""
    copy.mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / part)


def plant(fault: Fault, copy: Path) -> None:
    """Copy the course to the folder `copy`, with the fault in it.

    Raises:
        ValueError: the text to be changed does not occur exactly once.
    """
    copy_course(copy)
    path = copy / fault.file
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        cells = [cell for cell in notebook.cells if fault.old in cell.source]
        count = sum(cell.source.count(fault.old) for cell in cells)
        for cell in cells:
            cell.source = cell.source.replace(fault.old, fault.new)
        text = nbformat.writes(notebook)
    else:
        text = path.read_text(encoding="utf-8")
        count, text = text.count(fault.old), text.replace(fault.old, fault.new)
    if count != 1:
        raise ValueError(f"{fault.file}: {fault.old!r} occurs {count} times; the fault {fault.name!r} is out of date.")
    path.write_text(text, encoding="utf-8")


def passes(copy: Path, *tests: str) -> bool:
    """Whether all of these tests pass in a copy of the course.

    Raises:
        RuntimeError: pytest could not run them (a test of that name is missing, say); its output is in the message.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # so that several copies can be tested side by side
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: tests ran and failed; anything else is trouble with the test itself
        raise RuntimeError(f"{', '.join(tests)} could not be run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def goes_red(fault: Fault, copy: Path) -> bool:
    """Whether the test that has to notice the fault fails on a copy that has it."""
    plant(fault, copy)
    return not passes(copy, fault.caught_by)


def noticed(faults: list[Fault], folder: Path) -> list[bool]:
    """Whether each fault turns its test red; two at a time, each in a copy of its own below `folder`.

    Raises:
        AssertionError: a test is red without its fault, so its going red would prove nothing.
    """
    copy_course(folder / "unchanged")
    tests = sorted({fault.caught_by for fault in faults})
    assert passes(folder / "unchanged", *tests), f"red without any fault: one of {', '.join(tests)}"
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(goes_red, faults, [folder / str(number) for number in range(len(faults))]))


FAULTS = [
    Fault(
        "lora_alpha / r is not applied",
        LORA,
        "self.lora_B.T) * self.scaling\n\n    def update",
        "self.lora_B.T)\n\n    def update",
        f"{LESSONS}::test_lora_output_gradient_and_merge_equal_pefts",
        quick=True,
    ),
    Fault(
        "lora_alpha is not divided by r",
        LORA,
        f"{KAIMING}\n        self.scaling = lora_alpha / r",
        f"{KAIMING}\n        self.scaling = lora_alpha",
        f"{LESSONS}::test_lora_starts_unchanged_with_kaiming_uniform_a_and_zero_b",
    ),
    Fault(
        "A and B start the wrong way round",
        LORA,
        KAIMING,
        "nn.init.zeros_(self.lora_A)\n        nn.init.kaiming_uniform_(self.lora_B, a=math.sqrt(5))",
        f"{LESSONS}::test_lora_starts_unchanged_with_kaiming_uniform_a_and_zero_b",
        quick=True,
    ),
    Fault(
        "A and B both start at zero",
        LORA,
        KAIMING,
        "nn.init.zeros_(self.lora_A)",
        f"{LESSONS}::test_lora_starts_unchanged_with_kaiming_uniform_a_and_zero_b",
    ),
    Fault(
        "LoRA adds nothing",
        LORA,
        "self.lora_B.T) * self.scaling\n\n    def update",
        "self.lora_B.T) * 0\n\n    def update",
        f"{LESSONS}::test_lora_output_gradient_and_merge_equal_pefts",
    ),
    Fault(
        "B is frozen",
        LORA,
        f"self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))\n        {KAIMING}",
        f"self.lora_B = nn.Parameter(torch.zeros(base.out_features, r), requires_grad=False)\n        {KAIMING}",
        f"{LESSONS}::test_lora_output_gradient_and_merge_equal_pefts",
    ),
    Fault(
        "attention layers are skipped",
        LORA,
        'TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", ',
        "TARGETS = (",
        f"{LESSONS}::test_targets_are_all_linear_layers_but_the_head",
        quick=True,
    ),
    Fault(
        "merging forgets the scale",
        LORA,
        "return self.scaling * self.lora_B @ self.lora_A",
        "return self.lora_B @ self.lora_A",
        f"{LESSONS}::test_lora_output_gradient_and_merge_equal_pefts",
        quick=True,
    ),
    Fault(
        "forgetting is measured on training text",
        "course_utils/evaluation.py",
        "return general_nll(model, tokenizer, load_passages()).mean - before",
        'from course_utils.datafiles import load_task\n\n    texts = [row["answer"] for row in load_task("dates", '
        '"train")[:4]]\n    return general_nll(model, tokenizer, texts).mean - before',
        "tests/test_evaluation.py::test_forgetting_is_measured_on_the_passages",
        quick=True,
    ),
    # append here
    Fault(
        "ranks must not have gaps",
        "course_utils/trees.py",
        "if reply.rank is not None and first is not row:",
        "if reply.rank is not None and (first is not row or reply.rank >= len(siblings)):",
        "tests/test_trees.py::test_ranks_are_an_order_and_may_have_gaps",
    ),
    Fault(
        "two replies may share a rank",
        "course_utils/trees.py",
        "if reply.rank is not None and first is not row:",
        "if False:",
        "tests/test_trees.py::test_malformed_files_name_file_line_and_field",
    ),
    Fault(
        "spam is trained on",
        "course_utils/trees.py",
        'bool(message.get("deleted")) or (spam and not keep_spam)',
        'bool(message.get("deleted"))',
        "tests/test_trees.py::test_random_forests_keep_what_they_should_and_sort_replies",
    ),
    Fault(
        "replies of a message without a prompt around it vanish",
        "course_utils/trees.py",
        'stack += [(reply, message["message_id"]) for reply in reversed(replies)]',
        'stack += [(reply, message["message_id"]) for reply in reversed(replies) if root is not record]',
        "tests/test_trees.py::test_every_published_shape_gives_the_same_tree",
    ),
    Fault(
        "of two different copies of a message the first is taken",
        "course_utils/trees.py",
        "        if ours != theirs:",
        "        if False:",
        "tests/test_trees.py::test_what_stands_twice_but_differs_names_both_places",
    ),
    Fault(
        "half of a surrogate pair is let through in a conversation",
        "course_utils/trees.py",
        "            if isinstance(value, str):\n",
        '            if name in KNOWN and name != "text" and isinstance(value, str):\n',
        "tests/test_trees.py::test_malformed_files_name_file_line_and_field",
    ),
    Fault(
        "walking a tree recurses",
        "course_utils/trees.py",
        "            yield message\n            stack += reversed(message.replies)",
        "            yield message\n            for reply in message.replies:\n                yield from reply.walk()",
        "tests/test_trees.py::test_deep_trees_do_not_hit_the_recursion_limit",
    ),
    Fault(
        "a byte-order mark is part of the first record",
        "course_utils/records.py",
        "content.removeprefix(codecs.BOM_UTF8)",
        "content",
        "tests/test_records.py::test_formats_are_told_by_content_not_by_name",
    ),
    Fault(
        "blank lines are not counted",
        "course_utils/records.py",
        "enumerate(lines, 1):\n        if line.strip():",
        "enumerate(filter(str.strip, lines), 1):\n        if line.strip():",
        "tests/test_records.py::test_errors_count_as_the_reader_does",
    ),
    Fault(
        "any value of a data file passes for text",
        "course_utils/records.py",
        "if not isinstance(value, str) or not value.strip():",
        "if not value:",
        "tests/test_records.py::test_the_courses_own_files_hold_text",
    ),
    Fault(
        "an empty split is an empty list",
        "course_utils/datafiles.py",
        "    if not chosen:",
        "    if False:",
        "tests/test_trees.py::test_a_file_without_a_tree_to_use_says_so",
    ),
]
