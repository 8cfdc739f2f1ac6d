"""The faults: what is changed where, and the test that has to notice.

A fault that no test notices is a missing test. `python -m tests.mutants` (or `make mutants`) plants them all and prints
a table; `make test` plants the five that are marked `quick`. The list is at the end: new faults are appended there.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent.parent
PARTS = (
    "course_utils data notebooks tests recipes conftest.py pyproject.toml requirements.txt requirements-litgpt.txt "
    "environment.yml Makefile README.md CLAIMS.md CONTRIBUTING.md CITATION.cff .github docs".split()
)
LORA, LESSONS = "notebooks/01_lora.ipynb", "tests/lessons/test_01_lora.py"
PEFT_LESSON, PEFT_TESTS = "notebooks/02_peft.ipynb", "tests/lessons/test_02_peft.py"
QLORA, QLORA_TESTS = "notebooks/03_qlora.ipynb", "tests/lessons/test_03_qlora.py"
KAIMING = "nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))"


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in `file`; `make test` plants the quick ones.

    `caught_by` is the test as pytest names it; or a notebook and the id of a cell, the first that has to go red.
    """

    name: str
    file: str
    old: str
    new: str
    caught_by: str
    quick: bool = False

    @property
    def test(self) -> str:
        """What pytest has to run for it: the test, or the whole notebook."""
        return re.sub(r"\.ipynb::.*", ".ipynb", self.caught_by)


def copy_course(copy: Path) -> None:
    """Copy what the tests need to the folder `copy`."""
    copy.mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / part)


def altered(fault: Fault) -> str:
    """The file with the fault in it.

    Raises:
        ValueError: the text to be changed does not occur exactly once.
    """
    path = ROOT / fault.file
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
    return text


def plant(fault: Fault, copy: Path) -> None:
    """Copy the course to the folder `copy`, with the fault in it."""
    copy_course(copy)
    (copy / fault.file).write_text(altered(fault), encoding="utf-8")


def passes(copy: Path, *tests: str) -> bool:
    """Whether all of these tests pass in a copy of the course."""
    return pytest_in(copy, *tests).returncode == 0


def pytest_in(copy: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy of the course.

    Raises:
        RuntimeError: pytest could not run them (a test of that name is missing, say); its output is in the message.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # so that several copies can be tested side by side
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: tests ran and failed; anything else is trouble with the test itself
        raise RuntimeError(f"{', '.join(tests)} could not be run:\n{done.stdout}{done.stderr}")
    return done


def goes_red(fault: Fault, copy: Path) -> bool:
    """Whether the test that has to notice the fault fails on a copy that has it."""
    plant(fault, copy)
    if fault.test == fault.caught_by:
        return not passes(copy, fault.test)
    return fault.caught_by == f"{fault.test}::{first_red_cell(copy, fault.test)}"


def first_red_cell(copy: Path, notebook: str) -> str:
    """The id of the first cell of a notebook that goes red, nothing if none does; what comes after it is not run."""
    red = re.search(r"^FAILED .*::Cell (\d+)", pytest_in(copy, "-x", "-rf", notebook).stdout, re.MULTILINE)
    cells = [cell for cell in nbformat.read(copy / notebook, as_version=4).cells if cell.cell_type == "code"]
    return cells[int(red[1])].id if red else ""


def noticed(faults: list[Fault], folder: Path) -> list[bool]:
    """Whether each fault turns its test red; two at a time, each in a copy of its own below `folder`.

    Raises:
        AssertionError: a test is red without its fault, so its going red would prove nothing.
    """
    copy_course(folder / "unchanged")
    tests = sorted({fault.test for fault in faults})
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
    ),
    Fault(
        "merging forgets the scale",
        LORA,
        "return self.scaling * self.lora_B @ self.lora_A",
        "return self.lora_B @ self.lora_A",
        f"{LESSONS}::test_lora_output_gradient_and_merge_equal_pefts",
    ),
    Fault(
        "ranks must not have gaps",
        "course_utils/datafiles/trees.py",
        "if reply.rank is not None and first is not row:",
        "if reply.rank is not None and (first is not row or reply.rank >= len(siblings)):",
        "tests/test_trees.py::test_ranks_are_an_order_and_may_have_gaps",
        quick=True,
    ),
    Fault(
        "two replies may share a rank",
        "course_utils/datafiles/trees.py",
        "if reply.rank is not None and first is not row:",
        "if False:",
        "tests/test_trees.py::test_malformed_files_name_file_line_and_field",
    ),
    Fault(
        "spam is trained on",
        "course_utils/datafiles/trees.py",
        'bool(message.get("deleted")) or (spam and not keep_spam)',
        'bool(message.get("deleted"))',
        "tests/test_trees.py::test_random_forests_keep_what_they_should_and_sort_replies",
    ),
    Fault(
        "replies of a message without a prompt around it vanish",
        "course_utils/datafiles/trees.py",
        'stack += [(reply, message["message_id"]) for reply in reversed(replies)]',
        'stack += [(reply, message["message_id"]) for reply in reversed(replies) if root is not item]',
        "tests/test_trees.py::test_every_published_shape_gives_the_same_tree",
    ),
    Fault(
        "of two different copies of a message the first is taken",
        "course_utils/datafiles/trees.py",
        "        if ours != theirs:",
        "        if False:",
        "tests/test_trees.py::test_what_stands_twice_but_differs_names_both_places",
    ),
    Fault(
        "half of a surrogate pair is let through in a conversation",
        "course_utils/datafiles/trees.py",
        "            if isinstance(value, str):\n",
        '            if name in KNOWN and name != "text" and isinstance(value, str):\n',
        "tests/test_trees.py::test_malformed_files_name_file_line_and_field",
    ),
    Fault(
        "walking a tree recurses",
        "course_utils/datafiles/trees.py",
        "            yield message\n            stack += reversed(message.replies)",
        "            yield message\n            for reply in message.replies:\n                yield from reply.walk()",
        "tests/test_trees.py::test_deep_trees_do_not_hit_the_recursion_limit",
    ),
    Fault(
        "a byte-order mark is part of the first row",
        "course_utils/core/rows.py",
        "content.removeprefix(codecs.BOM_UTF8)",
        "content",
        "tests/test_rows.py::test_formats_are_told_by_content_not_by_name",
    ),
    Fault(
        "blank lines are not counted",
        "course_utils/core/rows.py",
        "enumerate(lines, 1):\n        if line.strip():",
        "enumerate(filter(str.strip, lines), 1):\n        if line.strip():",
        "tests/test_rows.py::test_errors_count_as_the_reader_does",
    ),
    Fault(
        "any value of a data file passes for text",
        "course_utils/core/rows.py",
        "if not isinstance(value, str) or not value.strip():",
        "if not value:",
        "tests/test_rows.py::test_the_courses_own_files_hold_text",
    ),
    Fault(
        "an empty split is an empty list",
        "course_utils/datafiles/collection.py",
        "    if not chosen:",
        "    if False:",
        "tests/test_trees.py::test_a_file_without_a_tree_to_use_says_so",
    ),
    Fault(
        "a character of the text stands for a number",
        "tests/notebooks/strict_nbval.py",
        "    if NUMBER.split(reference) != NUMBER.split(found):\n        return False\n"
        "    pairs = zip(NUMBER.findall(reference), NUMBER.findall(found), strict=True)",
        '    if NUMBER.sub("#", reference) != NUMBER.sub("#", found):\n        return False\n'
        "    pairs = zip(NUMBER.findall(reference), NUMBER.findall(found))",
        "tests/notebooks/test_strict_nbval.py::test_same_text",
        quick=True,
    ),
    Fault(
        "a last digit may differ however few are printed",
        "tests/notebooks/strict_nbval.py",
        "if digits >= 3 else 0",
        "if digits >= 1 else 0",
        "tests/notebooks/test_strict_nbval.py::test_same_text",
    ),
    Fault(
        "a tolerance has no ceiling",
        "tests/notebooks/strict_nbval.py",
        "if (rtol := tolerance(cell)) > MAX_RTOL:",
        "if (rtol := tolerance(cell)) > math.inf:",
        "tests/notebooks/test_strict_nbval.py::test_bad_structure_is_red",
    ),
    Fault(
        "an interval counts its runs as degrees of freedom",
        "course_utils/intervals.py",
        "df=len(numbers) - 1",
        "df=len(numbers)",
        "tests/test_intervals.py::test_interval_is_students_for_any_number_of_runs",
        quick=True,
    ),
    Fault(
        "a share has another interval than Wilson's",
        "course_utils/intervals.py",
        'method="wilson"',
        'method="exact"',
        "tests/test_intervals.py::test_share_has_wilsons_interval",
    ),
    Fault(
        "a group without a name vanishes from a summary",
        "course_utils/intervals.py",
        "runs.groupby(by, dropna=False)",
        "runs.groupby(by)",
        "tests/test_intervals.py::test_runs_without_a_value_are_a_group_of_their_own",
    ),
    Fault(
        "two processes write one study without a lock",
        "course_utils/studies/records.py",
        'with FileLock(study.path.with_suffix(".lock")):',
        "if True:",
        "tests/test_studies.py::test_two_processes_lose_no_line_and_run_nothing_twice",
    ),
    Fault(
        "a NaN score is recorded",
        "course_utils/studies/records.py",
        "            if not _finite(score):",
        "            if score is None:",
        "tests/test_studies.py::test_a_score_that_is_no_number_is_not_recorded",
    ),
    Fault(
        "the seventh line looks like the first",
        "course_utils/plots/style.py",
        "MARKERS[(place + turn) % len(MARKERS)]",
        "MARKERS[place]",
        "tests/test_plots.py::test_many_series_differ_without_color",
    ),
    Fault(
        "a loss that was infinite fell",
        "course_utils/plots/lines.py",
        "    if len(lost):",
        "    if False:",
        "tests/test_plots.py::test_loss_curves_say_what_they_cannot_show",
    ),
    Fault(
        "an unknown role speaks as the assistant",
        "course_utils/chat/threads.py",
        "    role = ALIASES.get(role, role)\n",
        '    role = ALIASES.get(role, role)\n    role = role if roles is None or role in roles else "assistant"\n',
        "tests/test_chat.py::test_a_role_without_a_place_in_the_template_is_an_error",
        quick=True,
    ),
    Fault(
        "ShareGPT's speakers are strangers",
        "course_utils/chat/threads.py",
        'dict.fromkeys(("prompter", "human"), "user")',
        '{"prompter": "user"}',
        "tests/test_chat.py::test_other_names_of_the_two_speakers_are_understood",
    ),
    Fault(
        "content that is not text is trained on",
        "course_utils/chat/threads.py",
        "    problem = text_problem(content)\n",
        "    content, problem = str(content), None\n",
        "tests/test_chat.py::test_content_that_is_not_text_is_an_error_with_its_place",
    ),
    Fault(
        "a typed end token ends the turn",
        "course_utils/chat/encoding.py",
        "[found.start() + 1 for found in",
        "[0 for found in",
        "tests/test_chat.py::test_special_tokens_stand_only_where_the_template_puts_them",
    ),
    Fault(
        "an answer melts into its prompt",
        "course_utils/chat/encoding.py",
        " if both[: len(left)] == left else _plain_ids(text, tokenizer)\n",
        "\n",
        "tests/test_chat.py::test_a_question_is_asked_in_the_tokens_that_were_trained_on",
    ),
    Fault(
        "no start token for a model that has one",
        "course_utils/chat/encoding.py",
        "    return bos if added and",
        "    return bos if False and",
        "tests/test_chat.py::test_a_thread_starts_once_if_the_tokenizer_starts_texts",
    ),
    Fault(
        "a start token stands twice",
        "course_utils/chat/encoding.py",
        "if added and ids[:1] != bos else",
        "if added else",
        "tests/test_chat.py::test_a_start_token_that_the_template_writes_itself_is_not_doubled",
    ),
    Fault(
        "truncation keeps the end",
        "course_utils/chat/encoding.py",
        "    ids, labels = (start + ids)[:max_length], ([IGNORE] * len(start) + labels)[:max_length]\n",
        "    ids, labels = start + ids, [IGNORE] * len(start) + labels\n"
        "    ids, labels = ids[-(max_length or 0) :], labels[-(max_length or 0) :]\n",
        "tests/test_chat.py::test_truncation_keeps_the_beginning_and_leaves_the_tokenizer_alone",
    ),
    Fault(
        "the worst reply is one that nobody ranked",
        "course_utils/chat/encoding.py",
        "ranked[-1] if take_last",
        "message.replies[-1] if take_last",
        "tests/test_chat.py::test_the_worst_reply_is_one_that_was_ranked",
    ),
    Fault(
        "threads are left out without a word",
        "course_utils/chat/encoding.py",
        "    if left_out:\n",
        "    if False:\n",
        "tests/test_chat.py::test_encode_all_leaves_out_long_and_unanswered_threads_whole_and_says_so",
    ),
    Fault(
        "evaluation leaves one mode for all layers",
        "course_utils/evaluation/mode.py",
        "module.training = training",
        "module.training = modes[0][1]",
        "tests/test_evaluation.py::test_evaluation_leaves_the_mode_of_every_layer_alone",
    ),
    Fault(
        "the loss is added up in float64 on the GPU",
        "course_utils/evaluation/losses.py",
        "token_losses(model, batch).cpu().double()",
        "token_losses(model, batch).double()",
        "tests/test_evaluation.py::test_the_loss_is_added_up_where_there_is_float64",
    ),
    Fault(
        "no tokens have a loss",
        "course_utils/evaluation/losses.py",
        "        if self.tokens < 1:",
        "        if False:",
        "tests/test_evaluation.py::test_an_empty_set_is_an_error_that_says_what_to_pass",
    ),
    Fault(
        "questions are padded on the right",
        "course_utils/batches.py",
        "[[pad_token_id] * n + prompt for n,",
        "[prompt + [pad_token_id] * n for n,",
        "tests/test_evaluation.py::test_a_question_is_asked_as_it_was_trained_on",
    ),
    Fault(
        "a test may change the shared model",
        "tests/conftest.py",
        "    if changed:\n",
        "    if False:\n",
        "tests/test_evaluation.py::test_a_test_that_changes_the_shared_model_fails",
    ),
    Fault(
        "the loss of several processes lacks their number",
        "course_utils/training/sft.py",
        "loss = loss * self.accelerator.num_processes",
        "loss = loss * 1",
        "tests/test_sft.py::test_two_processes_train_like_one",
    ),
    Fault(
        "a loss that is no number trains on",
        "course_utils/training/loop.py",
        "if not math.isfinite(loss):",
        "if False:",
        "tests/test_training.py::test_a_loss_that_is_no_number_stops_the_run_at_its_step",
    ),
    Fault(
        "checkpoints are saved without a look at the parameters",
        "course_utils/training/sft.py",
        "        if not all(p.isfinite().all() for p in self.model.parameters() if p.requires_grad):",
        "        if False:",
        "tests/test_sft.py::test_parameters_that_are_no_numbers_are_not_saved",
    ),
    Fault(
        "two visible GPUs are left to DataParallel",
        "course_utils/training/sft.py",
        "args._n_gpu = 1",
        "args._n_gpu = 2",
        "tests/test_sft.py::test_two_visible_gpus_do_not_stop_a_notebook",
    ),
    Fault(
        "autocast stays on the trained model",
        "course_utils/training/sft.py",
        "        trainer.model.forward = forward",
        "        pass",
        "tests/test_sft.py::test_the_wrapper_of_mixed_precision_is_taken_off",
    ),
    Fault(
        "the trainer asks the machine where the model lies",
        "course_utils/training/sft.py",
        "here = next(model.parameters()).device.type",
        "here = machine.device()",
        "tests/test_sft.py::test_the_trainer_asks_the_model_where_it_lies_not_the_machine",
    ),
    Fault(
        "a torn checkpoint counts as whole",
        "course_utils/training/checkpoints.py",
        "        if _is_whole(path):",
        "        if path.is_dir():",
        "tests/test_sft.py::test_a_torn_checkpoint_falls_back_to_the_whole_one_before",
    ),
    Fault(
        "a run goes on with another run's checkpoint",
        "course_utils/training/checkpoints.py",
        "    if differing or not stored:",
        "    if not stored:",
        "tests/test_sft.py::test_other_settings_are_another_run",
    ),
    Fault(
        "float16 weights are trained",
        "course_utils/training/loop.py",
        "if any(p.dtype == torch.float16 for p in trainable):",
        "if any(p.dtype == torch.float64 for p in trainable):",
        "tests/test_training.py::test_fit_refuses_to_train_float16_weights",
    ),
    Fault(
        "gradients vanish in a float16 base",
        "course_utils/training/loop.py",
        "enabled=any(p.dtype == torch.float16 for p in model.parameters()))",
        "enabled=False)",
        "tests/test_training.py::test_gradients_do_not_vanish_in_a_float16_base",
    ),
    Fault(
        "a batch stays where it was collated",
        "course_utils/batches.py",
        "{name: tensor.to(device) for name, tensor in batch.items()",
        "{name: tensor for name, tensor in batch.items()",
        "tests/test_batches.py::test_batches_go_to_where_the_model_lies",
    ),
    Fault(
        "the CPU profile puts models on the GPU",
        "course_utils/machine.py",
        'if os.environ.get("COURSE_PROFILE") == "cpu":',
        'if os.environ.get("COURSE_PROFILE") == "none":',
        "tests/test_machine.py::test_cpu_profile_keeps_models_off_the_gpu",
    ),
    Fault(
        "a GPU that torch has no code for is used",
        "course_utils/machine.py",
        'return "cuda" if _has_kernels(torch.cuda.get_device_capability()) else "cpu"',
        'return "cuda"',
        "tests/test_machine.py::test_a_gpu_that_torch_has_no_code_for_is_left_alone",
    ),
    Fault(
        "two T4s compute in emulated bfloat16",
        "course_utils/machine.py",
        'return "a100" if has_native_bf16() else "t4"',
        'return "a100" if has_native_bf16() or torch.cuda.device_count() > 1 else "t4"',
        "tests/test_machine.py::test_profile_follows_the_hardware",
    ),
    Fault(
        "a large profile trains twelve times over its data",
        "course_utils/machine.py",
        'Profile("a100", "bf16", 512, 4, 120,',
        'Profile("a100", "bf16", 512, 4, 1200,',
        "tests/test_machine.py::test_no_profile_goes_over_a_task_many_times",
    ),
    Fault(
        "a 4-bit checkpoint loaded as it is stored is not made safe",
        "course_utils/loading/models.py",
        "return make_safe_to_train(model if quantized else model.to(device))",
        "return make_safe_to_train(model) if precision in QUANTIZED else model.to(device)",
        "tests/test_loading.py::test_a_4_bit_checkpoint_is_made_safe_to_train",
    ),
    Fault(
        "a quantized checkpoint is taken for another format",
        "course_utils/loading/models.py",
        'if stored and precision not in ("auto", stored):',
        "if stored and not precision:",
        "tests/test_loading.py::test_a_quantized_checkpoint_is_not_taken_for_another",
    ),
    Fault(
        "compute_dtype changes the format of plain weights",
        "course_utils/loading/models.py",
        "(compute_dtype if quantized else None)",
        "compute_dtype",
        "tests/test_loading.py::test_compute_dtype_leaves_the_format_of_plain_weights_alone",
    ),
    Fault(
        "an adapter names a path of this machine",
        "course_utils/loading/models.py",
        "if model_id in DEFAULT:\n        model.name_or_path",
        "if not model_id:\n        model.name_or_path",
        "tests/test_loading.py::test_an_adapter_names_the_default_model_as_the_hub_does",
    ),
    Fault(
        "the public id of the default model goes to the hub",
        "course_utils/loading/models.py",
        "DEFAULT = (cache.NAME, cache.PUBLIC_ID)",
        "DEFAULT = (cache.NAME,)",
        "tests/test_loading.py::test_an_adapter_travels_to_a_machine_without_a_hub",
    ),
    Fault(
        "~ is not the home folder",
        "course_utils/loading/models.py",
        "path = Path(os.path.expanduser(model_id))",
        "path = Path(model_id)",
        "tests/test_loading.py::test_home_is_expanded",
    ),
    Fault(
        "an altered file of the model is not noticed",
        "course_utils/loading/cache.py",
        'if _sha256(folder / name) != written["sha256"]:',
        "if not name:",
        "tests/test_cache.py::test_a_damaged_file_is_fetched_again",
    ),
    Fault(
        "a model without manifest is not checked",
        "course_utils/loading/cache.py",
        'f"{WEIGHTS} is cut or was altered"',
        "None",
        "tests/test_cache.py::test_a_damaged_folder_without_manifest_is_fetched_again",
    ),
    Fault(
        "damage that cannot be mended does not name its folder",
        "course_utils/loading/cache.py",
        "        if target.exists():\n            reason +=",
        "        if not damage:\n            reason +=",
        "tests/test_cache.py::test_damage_that_cannot_be_mended_names_the_folder_to_delete",
    ),
    Fault(
        "a full disk is reported by safetensors alone",
        "course_utils/loading/cache.py",
        "except (ModelCacheError, OSError, SafetensorError) as error:",
        "except (ModelCacheError, OSError) as error:",
        "tests/test_cache.py::test_safetensors_that_cannot_write",
    ),
    Fault(
        "a relative COURSE_CACHE depends on where a process stands",
        "course_utils/loading/cache.py",
        "return start / os.path.expanduser(configured)",
        "return Path(os.path.expanduser(configured))",
        "tests/test_cache.py::test_a_relative_cache_is_one_folder_wherever_a_process_stands",
    ),
    Fault(
        "storages are told apart by their address",
        "course_utils/memory/measured.py",
        "storages[id(storage)] = storage",
        "storages[storage.data_ptr()] = storage",
        "tests/test_memory.py::test_activations_on_the_meta_device_are_those_of_the_cpu",
    ),
    Fault(
        "the row scales of LLM.int8() are not counted",
        "course_utils/memory/measured.py",
        ", *row_scales(model)]",
        "]",
        "tests/test_memory.py::test_int8_rows_have_their_scales",
    ),
    Fault(
        "memory is measured on one GPU",
        "course_utils/memory/measured.py",
        "gpus = range(torch.cuda.device_count())",
        "gpus = range(1)",
        "tests/test_memory.py::test_measure_adds_up_all_gpus",
    ),
    Fault(
        "the peak of a block that raises is lost",
        "course_utils/memory/measured.py",
        "        try:\n            yield peak\n        finally:\n            peak.peak = sum(",
        "        yield peak\n        if gpus:\n            peak.peak = sum(",
        "tests/test_memory.py::test_measure_knows_the_peak_of_a_block_that_fails",
    ),
    Fault(
        "a loaded package that pip replaced goes unnoticed",
        "course_utils/bootstrap.py",
        "_replaced.update(",
        "dict().update(",
        "tests/test_bootstrap.py::test_a_loaded_package_that_pip_replaced_stops_the_cell_until_the_kernel_is_restarted",
    ),
    Fault(
        "an old torchao is left in sight",
        "course_utils/bootstrap.py",
        '        sys.modules["torchao"] = None',
        "        pass",
        "tests/test_bootstrap.py::test_old_torchao_is_hidden_from_peft_and_a_new_one_is_not",
    ),
    Fault(
        "pip may exchange the kernel under the notebook",
        "course_utils/bootstrap.py",
        '"ipython ipykernel ipywidgets',
        '"ipywidgets',
        "tests/test_bootstrap.py::test_what_the_host_runs_on_is_never_replaced",
    ),
    Fault(
        "prefix tuning warns again",
        "course_utils/core/noise.py",
        "`?past_key_values`? is deprecated",
        "`past_keys` is deprecated",
        "tests/test_bootstrap.py::test_known_noise_is_silent_and_everything_else_is_not",
    ),
    Fault(
        "a second start clones again",
        LORA,
        '["..", "../..", "lora-course"]',
        '[".."]',
        "tests/test_bootstrap.py::test_lone_notebook_finds_its_clone_again",
    ),
    Fault(
        "half a clone is taken for the course",
        LORA,
        'tempfile.mkdtemp(prefix="lora-course-", dir=".")',
        '"lora-course"',
        "tests/test_bootstrap.py::test_an_interrupted_clone_is_not_taken_for_the_course",
    ),
    Fault(
        "notebook 04 does not ask for trl",
        "notebooks/04_guanaco_sft.ipynb",
        'bootstrap.ensure("sft")',
        "bootstrap.ensure()",
        "tests/test_bootstrap.py::test_all_notebooks_share_the_first_cell_and_only_the_last_asks_for_the_sft_packages",
    ),
    Fault(
        "a kernel that the user has installed runs the course",
        "course_utils/course/execute.py",
        "return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())",
        "pass",
        "tests/test_course.py::test_the_kernel_is_the_python_that_runs_this",
    ),
    Fault(
        "the course stops at a letter that its console lacks",
        "course_utils/course/__main__.py",
        "    console.accept_all()\n",
        "",
        "tests/test_course.py::test_a_run_leaves_notebooks_and_a_site_of_them_and_prints_on_any_console",
    ),
    Fault(
        "a lower bound that was tried nowhere",
        "pyproject.toml",
        '"torch>=2.10"',
        '"torch>=2.9"',
        "tests/test_packaging.py::test_every_range_is_a_tested_lower_bound_that_the_pin_satisfies",
    ),
    Fault(
        "a split leaks into another",
        "course_utils/datafiles/collection.py",
        "chosen = [tree for tree in trees if split in (None, split_of(tree.message_id))]",
        'chosen = [tree for tree in trees if split != "train" or split_of(tree.message_id) != "test"]',
        "tests/test_trees.py::test_splits_are_fixed_and_about_80_10_10",
    ),
    Fault(
        "a task's splits are one",
        "course_utils/datafiles/tasks.py",
        '"answer") if row["split"] == split]',
        '"answer")]',
        "tests/test_tasks.py::test_task_sizes_and_no_prompt_twice",
    ),
    Fault(
        "a task answers with the wrong month",
        "course_utils/datafiles/tasks.py",
        "{month:02d}-{day:02d}",
        "{day:02d}-{month:02d}",
        "tests/test_tasks.py::test_tasks_are_those_that_the_writer_writes",
    ),
    Fault(
        "the second-ranked reply is learned",
        "course_utils/chat/encoding.py",
        "message = ranked[-1] if take_last else message.replies[0]",
        "message = ranked[-1] if take_last else message.replies[:2][-1]",
        "tests/test_chat.py::test_top_thread_follows_the_ranks",
    ),
    Fault(
        "labels are shifted by one",
        "course_utils/chat/encoding.py",
        "labels += row if answer or",
        "labels += [*row[1:], row[0]] if answer or",
        "tests/test_chat.py::test_every_thread_of_the_course_is_tokenized_and_masked_as_by_hand",
    ),
    Fault(
        "the question is learned as well",
        "course_utils/chat/encoding.py",
        "labels += row if answer or train_on",
        "labels += row if row or train_on",
        "tests/test_chat.py::test_supervised_text_is_the_answers_and_their_end",
    ),
    Fault(
        "the end of an answer is not learned",
        "course_utils/chat/encoding.py",
        'add(answer, form.end or (tokenizer.eos_token if answer else ""))',
        'add(False, form.end or (tokenizer.eos_token if answer else ""))',
        "tests/test_chat.py::test_supervised_text_is_the_answers_and_their_end",
    ),
    Fault(
        "a conversation is shown as the markup it spells",
        "course_utils/chat_ui.py",
        "{html.escape(turn['content'])}",
        "{turn['content']}",
        "tests/test_chat_ui.py::test_html_shows_every_role_with_its_line_breaks",
    ),
    Fault(
        "padding counts as text",
        "course_utils/batches.py",
        '"attention_mask": padded([[1] * len(example["input_ids"]) for example in examples], 0),',
        '"attention_mask": padded([[1] * len(example["input_ids"]) for example in examples], 1),',
        "tests/test_batches.py::test_collate_pads_by_length_not_by_token",
    ),
    Fault(
        "the order of batches has no seed",
        "course_utils/batches.py",
        "random.Random(seed), len(lengths)",
        "random.Random(), len(lengths)",
        "tests/test_batches.py::test_batches_show_every_example_once_per_pass_in_a_seeded_order",
    ),
    Fault(
        "a pass ends with a smaller batch",
        "course_utils/batches.py",
        "full = len(examples) - len(examples) % batch_size",
        "full = len(examples)",
        "tests/test_batches.py::test_a_sequential_order_is_that_of_the_examples_in_every_pass",
    ),
    Fault(
        "a token is predicted from itself",
        "course_utils/batches.py",
        'batch["labels"][:, 1:], (0, 1)',
        'batch["labels"], (0, 0)',
        "tests/test_batches.py::test_loss_equals_the_models_own",
    ),
    Fault(
        "accumulated batches weigh alike, whatever their tokens",
        "course_utils/training/loop.py",
        "loss = supervised_loss(model, part, items)",
        "loss = supervised_loss(model, part) / len(parts)",
        "tests/test_recipe.py::test_accumulated_batches_equal_one_large_batch",
    ),
    Fault(
        "a recipe's weight decay is ignored",
        "course_utils/training/loop.py",
        "weight_decay=recipe.weight_decay",
        "weight_decay=0.0",
        "tests/test_recipe.py::test_the_plain_loop_obeys_every_field_of_the_steps",
    ),
    Fault(
        "a recipe's schedule is ignored",
        "course_utils/training/loop.py",
        "            rates.step()\n",
        "",
        "tests/test_recipe.py::test_a_linear_schedule_equals_one_written_out",
    ),
    Fault(
        "a recipe's clipping is ignored",
        "course_utils/training/loop.py",
        "clip_grad_norm_(trainable, recipe.max_grad_norm)",
        "clip_grad_norm_(trainable, 1.0)",
        "tests/test_recipe.py::test_the_plain_loop_obeys_every_field_of_the_steps",
    ),
    Fault(
        "TRL is not told the recipe's order",
        "course_utils/training/sft.py",
        '    "train_sampling_strategy": "batch_order",\n',
        "",
        "tests/test_recipe.py::test_every_field_is_somebodys",
    ),
    Fault(
        "an option overrules the recipe",
        "course_utils/training/sft.py",
        "if name in options]:\n        raise ValueError(f\"{', '.join(double)}",
        "if False]:\n        raise ValueError(f\"{', '.join(double)}",
        "tests/test_sft.py::test_what_the_recipe_says_is_said_once",
    ),
    Fault(
        "an adapter starts at random",
        "course_utils/training/prepare.py",
        "        torch.manual_seed(recipe.seed)\n",
        "",
        "tests/test_recipe.py::test_the_adapter_is_pefts_with_a_start_that_the_seed_fixes",
    ),
    Fault(
        "a recipe's revision is not loaded",
        "course_utils/training/prepare.py",
        "revision=recipe.revision",
        "revision=None",
        "tests/test_recipe.py::test_the_model_is_loaded_as_the_recipe_says",
    ),
    Fault(
        "a recipe takes a warmup that its schedule has not",
        "course_utils/training/recipe.py",
        'if self.warmup_steps and self.schedule == "constant":',
        "if False:",
        "tests/test_recipe.py::test_what_cannot_be_is_named",
    ),
    Fault(
        "another data set goes on with a run",
        "course_utils/training/checkpoints.py",
        'return {**found, "adapters": list(adapters), "data": data}',
        'return {**found, "adapters": list(adapters)}',
        "tests/test_sft.py::test_other_data_and_other_adapters_are_another_run",
    ),
    Fault(
        "the loss of a batch weighs as one, whatever its tokens",
        "course_utils/evaluation/losses.py",
        "part.sum().item()",
        "part.mean().item() * batch_size",
        "tests/test_evaluation.py::test_nll_equals_the_models_own_loss_example_by_example",
    ),
    Fault(
        "an answer goes on behind its end",
        "course_utils/evaluation/answers.py",
        "tokenizer.decode(ids[: ids.index(end)] if stopped else ids)",
        "tokenizer.decode(ids)",
        "tests/test_evaluation.py::test_generation_says_whether_it_stopped",
    ),
    Fault(
        "means alone decide what is clearly less",
        "course_utils/intervals.py",
        'return bool(a[column] + a[f"{column}_half"] < b[column] - b[f"{column}_half"])',
        "return bool(a[column] < b[column])",
        "tests/test_intervals.py::test_intervals_that_overlap_decide_nothing",
    ),
    Fault(
        "other scoring is the same run",
        "course_utils/studies/records.py",
        'IDENTITY = ("recipe", "scoring", "data_sha256")',
        'IDENTITY = ("recipe", "data_sha256")',
        "tests/test_studies.py::test_other_scoring_and_other_data_make_another_run_and_other_line_endings_do_not",
    ),
    Fault(
        "other data is the same run",
        "course_utils/studies/records.py",
        '"data_sha256": _sha256(self.reads)}',
        '"data_sha256": "0"}',
        "tests/test_studies.py::test_other_scoring_and_other_data_make_another_run_and_other_line_endings_do_not",
    ),
    Fault(
        "a record with half a recipe passes",
        "course_utils/studies/records.py",
        'for name in sorted(wanted ^ set(line["recipe"])):',
        'for name in sorted(set(line["recipe"]) - wanted):',
        "tests/test_studies.py::test_a_line_that_is_no_whole_record_is_noticed_by_every_reader",
    ),
    Fault(
        "a study of the dates reads more than it says",
        "course_utils/studies/dates.py",
        '("tasks/dates.jsonl", "passages.jsonl")',
        '("tasks/dates.jsonl",)',
        "tests/test_studies.py::test_a_change_of_a_file_that_a_study_reads_makes_other_runs",
    ),
    Fault(
        "a run that decided nothing saw the opposite",
        "course_utils/claims.py",
        '"otherwise": "not decided here"',
        '"otherwise": "the opposite seen here"',
        "tests/test_claims.py::test_each_kind_has_its_own_words",
    ),
    Fault(
        "the statement and its opposite were both seen",
        "course_utils/claims.py",
        "if opposite and (holds or partly):",
        "if False:",
        "tests/test_claims.py::test_a_verdict_that_a_kind_has_not_is_refused",
    ),
    Fault(
        "the README's surprises are all claims",
        "course_utils/course/readme.py",
        'if known[each.id].get("surprise")]',
        "]",
        "tests/test_readme.py::test_readme_is_up_to_date",
    ),
    Fault(
        "claims without a verdict are not listed",
        "course_utils/course/claims_page.py",
        "owed = [row for id, row in known.items() if",
        "owed = [row for id, row in known.items() if not row and",
        "tests/test_readme.py::test_claims_page_is_up_to_date",
    ),
    Fault(
        "generated text eats the rest of its page",
        "course_utils/course/marks.py",
        "content[:start] + text + content[end:]",
        "content[:start] + text",
        "tests/test_marks.py::test_text_is_put_between_its_marks_and_read_again",
    ),
    Fault(
        "a room may say nothing of itself",
        "course_utils/course/rooms.py",
        "    if not found:\n",
        "    if False:\n",
        "tests/test_rooms.py::test_a_file_without_a_question_is_named",
    ),
    Fault(
        "every frame of a progress bar is stored",
        "course_utils/course/tidy.py",
        'stream.text = re.sub(r"^.*\\r(?=[^\\n])", "", stream.text, flags=re.MULTILINE).lstrip("\\r\\n")',
        'stream.text = stream.text.lstrip("\\r\\n")',
        "tests/test_course.py::test_progress_bars_become_their_last_line",
    ),
    Fault(
        "pictures on the site have no alt text",
        "course_utils/course/site.py",
        "        if any(said):",
        "        if False:",
        "tests/test_site.py::test_pictures_keep_their_alt_text",
    ),
    Fault(
        "a published address is written into no first cell",
        "course_utils/course/publish.py",
        "            cell.source = taken(cell.source, repo)",
        "            pass",
        "tests/test_publish.py::test_one_command_writes_the_address_everywhere_and_no_output_changes",
    ),
    Fault(
        "the datasheet counts answers as questions",
        "course_utils/course/datasheet.py",
        'asked += message.role == "prompter"',
        "asked += 1",
        "tests/test_data.py::test_datasheet_quotes_the_statistics",
    ),
    Fault(
        "a lesson is run, not read",
        "course_utils/lessons.py",
        "if _constant(node) or isinstance(",
        "if True or isinstance(",
        "tests/test_lessons.py::test_definitions_are_taken_out_and_nothing_else_runs",
    ),
    Fault(
        "double quantization is a name alone",
        "course_utils/loading/precisions.py",
        'bnb_4bit_use_double_quant=precision.endswith("-dq")',
        "bnb_4bit_use_double_quant=False",
        "tests/test_loading.py::test_4_bit_weights_are_those_of_bitsandbytes",
    ),
    Fault(
        "a quick look for the model imports torch",
        "course_utils/loading/__init__.py",
        "import lazy_loader\n",
        "import lazy_loader\nimport torch  # noqa: F401\n",
        "tests/test_machine.py::test_a_model_that_is_there_is_found_without_torch",
    ),
    Fault(
        "every notebook imports TRL",
        "course_utils/training/__init__.py",
        "import lazy_loader\n",
        "import lazy_loader\nimport trl  # noqa: F401\n",
        "tests/test_machine.py::test_only_notebook_04_needs_trl_and_datasets",
    ),
    Fault(
        "a file is written in place",
        "course_utils/core/files.py",
        "    os.replace(partial, path)\n",
        "    path.write_bytes(partial.read_bytes())\n",
        "tests/test_files.py::test_a_file_is_written_whole_or_not_at_all",
    ),
    Fault(
        "a console without a letter stops the program",
        "course_utils/core/console.py",
        'stream.reconfigure(errors="replace")',
        'stream.reconfigure(errors="strict")',
        "tests/test_course.py::test_a_run_leaves_notebooks_and_a_site_of_them_and_prints_on_any_console",
    ),
    Fault(
        "COURSE_MODEL is ignored",
        "course_utils/machine.py",
        "return replace(PROFILES[name], model=model) if model else PROFILES[name]",
        "return PROFILES[name]",
        "tests/test_machine.py::test_a_profile_has_its_own_model_unless_the_environment_names_another",
    ),
    Fault(
        "a study of replies forgets its limit",
        "course_utils/studies/reply_ranks.py",
        'SCORING = {"max_new_tokens": 96}',
        'SCORING = {"max_new_tokens": 64}',
        "tests/test_studies.py::test_committed_records_are_complete_and_no_others",
    ),
    Fault(
        "a study of tasks trains on what it scores",
        "course_utils/studies/tasks.py",
        '("train", SCORING["split"])',
        '("validation", SCORING["split"])',
        "tests/test_studies.py::test_a_study_of_tasks_scores_rows_that_it_did_not_train_on",
    ),
    Fault(
        "the command makes only the first of the missing runs",
        "course_utils/studies/__main__.py",
        "for recipe in waiting:",
        "for recipe in waiting[:1]:",
        "tests/test_studies.py::test_the_command_says_what_is_missing_and_makes_it",
    ),
    Fault(
        "the head counts its positions from the start",
        "course_utils/batches.py",
        "values[:, -counted.shape[1] :]",
        "values[:, : counted.shape[1]]",
        "tests/test_batches.py::test_loss_with_virtual_tokens_equals_pefts",
    ),
    Fault(
        "the head sees every position",
        "course_utils/batches.py",
        "(_supervised(seen[0], counted), *seen[1:])",
        "seen",
        "tests/test_batches.py::test_loss_equals_the_models_own_on_every_architecture",
    ),
    Fault(
        "a grouped order groups nothing",
        "course_utils/batches.py",
        "sorted(window, key=lengths.__getitem__)",
        "window",
        "tests/test_batches.py::test_a_grouped_order_has_like_lengths_in_a_batch_and_every_example_once_a_pass",
    ),
    Fault(
        "a grouped order goes from short to long",
        "course_utils/batches.py",
        "rng.sample(cut, len(cut)) for place",
        "cut for place",
        "tests/test_batches.py::test_a_grouped_order_has_like_lengths_in_a_batch_and_every_example_once_a_pass",
    ),
    Fault(
        "the divergence is measured from the trained model's side",
        "course_utils/evaluation/drift.py",
        "old.exp() * (old - new)",
        "new.exp() * (new - old)",
        "tests/test_drift.py::test_drift_equals_torchs_divergence_and_loss_example_by_example",
    ),
    Fault(
        "runs are paired by their place in the tables, not by seed",
        "course_utils/intervals.py",
        "(table.set_index(by)[column] for table in (a, b))",
        "(table.sort_values(column).set_index(table[by].sort_values())[column] for table in (a, b))",
        "tests/test_intervals.py::test_paired_difference_is_scipys_and_pairs_by_seed_not_by_place",
    ),
    Fault(
        "the dots of all runs are joined into one line",
        "course_utils/plots/dots.py",
        "in frame.groupby(line, sort=False):\n        axes",
        "in [(0, frame)]:\n        axes",
        "tests/test_plots.py::test_each_run_is_a_line_and_each_look_a_dot",
    ),
    Fault(
        "names at the right edge are written over each other",
        "course_utils/plots/style.py",
        "max(heights[name], max(placed.values(), default=-gap) + gap)",
        "heights[name]",
        "tests/test_plots.py::test_names_at_the_right_do_not_overlap_and_keep_the_order_of_their_ends",
    ),
    Fault(
        "the study of ranks has one learning rate",
        "course_utils/studies/ranks.py",
        "lr=[3e-4, 1e-3]",
        "lr=[1e-3]",
        "tests/test_forgetting.py::test_ranks_are_those_of_the_study_at_its_two_rates_and_seeds",
    ),
    Fault(
        "forgetting is measured on passages that are rehearsed, too",
        "course_utils/studies/forgetting.py",
        "range(len(texts)) if place % every",
        "range(len(texts))",
        "tests/test_forgetting.py::test_rehearsed_passages_are_not_those_that_forgetting_is_measured_on",
    ),
    Fault(
        "every pass of TRL's trainer has the order of the first",
        "course_utils/batches.py",
        "islice(found, self.epoch, None)",
        "islice(found, 0, None)",
        "tests/test_sft.py::test_grouped_passes_are_those_of_the_plain_loop",
    ),
    Fault(
        "the backward pass of gradient checkpointing meets other formats than the forward pass",
        "course_utils/training/fast.py",
        'or getattr(bare, "is_gradient_checkpointing", False)',
        "",
        "tests/test_fast.py::test_with_gradient_checkpointing_the_gradients_are_the_same",
    ),
    Fault(
        "the head is copied for every row that is asked",
        "course_utils/evaluation/answers.py",
        "(seen[0].contiguous(), *seen[1:])",
        "seen",
        "tests/test_evaluation.py::test_the_head_is_not_copied_for_every_row",
    ),
    Fault(
        "weights that bitsandbytes has packed for its kernel are unpacked as if they were not",
        "course_utils/evaluation/plain_layers.py",
        'and not getattr(state, "packing_format_for_cpu", False)',
        "",
        "tests/test_plain_layers.py::test_what_the_model_itself_repacks_or_takes_apart_stays",
    ),
    Fault(
        "a token of a short batch counts for many of a long one",
        "course_utils/batches.py",
        'if order != "group_by_length":',
        "if True:",
        "tests/test_training.py::test_grouped_steps_weigh_every_token_alike",
    ),
    Fault(
        "a finished run makes one more step",
        "course_utils/training/callbacks.py",
        "if state.global_step >= state.max_steps:",
        "if False:",
        "tests/test_sft.py::test_a_finished_run_is_not_repeated",
    ),
    Fault(
        "TRL's log shows a grouped step's loss as weighted",
        "course_utils/training/sft.py",
        "return loss.detach() + num_items / usual * (loss - loss.detach())",
        "return num_items / usual * loss",
        "tests/test_sft.py::test_grouped_steps_weigh_every_token_alike",
    ),
    Fault(
        "bf16 is taken because it is native",
        "course_utils/machine.py",
        "return 1.2 * _seconds",
        "return 0.0 * _seconds",
        "tests/test_machine.py::test_native_bf16_is_taken_where_it_is_faster",
    ),
    Fault(
        "inputs of LoRA are cast to fp32",
        "course_utils/training/fast.py",
        "stack.enter_context(disable_input_dtype_casting(bare))",
        "pass",
        "tests/test_fast.py::test_lora_is_computed_in_the_format_of_the_base",
    ),
    Fault(
        "DoRA is taken for LoRA",
        "course_utils/training/fast.py",
        " and not config.use_dora",
        "",
        "tests/test_fast.py::test_other_methods_compute_in_their_own_formats",
    ),
    Fault(
        "eager attention stays",
        "course_utils/training/fast.py",
        "        base.set_attn_implementation(before)",
        "        pass",
        "tests/test_fast.py::test_attention_is_written_out_where_that_is_faster_and_left_as_it_was",
    ),
    Fault(
        "LoRA is added up in 16 bits",
        "course_utils/evaluation/plain_layers.py",
        "return dtype == torch.float32 and fp32",
        "return fp32",
        "tests/test_plain_layers.py::test_4_bit_weights_are_unpacked_to_the_same_numbers",
    ),
    Fault(
        "plain layers stay",
        "course_utils/evaluation/plain_layers.py",
        "            setattr(parent, name, layer)\n",
        "            pass\n",
        "tests/test_plain_layers.py::test_an_error_inside_puts_the_layers_back",
    ),
    Fault(
        "rows that ended stay",
        "course_utils/evaluation/answers.py",
        "(4 * ended.sum() >= len(ended))",
        "(ended.sum() >= len(ended))",
        "tests/test_evaluation.py::test_answers_are_those_of_transformers_and_rows_that_ended_leave",
    ),
    Fault(
        "answers come in the order of their lengths",
        "course_utils/evaluation/answers.py",
        "for index in range(len(prompts))]",
        "for index in by_length]",
        "tests/test_evaluation.py::test_prompts_of_like_length_share_a_batch_and_answers_keep_their_order",
    ),
    Fault(
        "stock TRL is measured without what slows it",
        "course_utils/studies/equal_quality.py",
        "gradient_checkpointing=not tuned",
        "gradient_checkpointing=False",
        "tests/test_equal_quality.py::test_stock_trl_is_stock",
    ),
    Fault(
        "published sides are not swapped back",
        "course_utils/tournament/verdicts.py",
        'first_is: "first"}',
        '"a": "first"}',
        "tests/test_tournament.py::test_published_verdicts_are_those_that_were_released",
    ),
    Fault(
        "a judge sees the names of the models",
        "course_utils/tournament/verdicts.py",
        "return self._questions[match.prompt], first, second",
        'return f"{self._questions[match.prompt]} {match.first}", first, second',
        "tests/test_judges.py::test_a_judge_sees_no_name_of_a_model",
    ),
    Fault(
        "a verdict overwrites those before",
        "course_utils/tournament/verdicts.py",
        'open(self.path, "ab")',
        'open(self.path, "wb")',
        "tests/test_tournament.py::test_no_verdict_is_lost_on_a_kill",
    ),
    Fault(
        "a line that was cut off stays",
        "course_utils/tournament/verdicts.py",
        "if whole != content:",
        "if not whole:",
        "tests/test_tournament.py::test_a_line_that_a_kill_cut_off_is_judged_again",
    ),
    Fault(
        "verdicts on other answers are taken over",
        "course_utils/tournament/verdicts.py",
        ' or row.get("seen") != self._hash(match)',
        "",
        "tests/test_tournament.py::test_verdicts_on_something_else_are_not_taken_over",
    ),
    Fault(
        "ties are dropped",
        "course_utils/tournament/ratings.py",
        'matches[matches["winner"] != "unparsed"]',
        'matches[matches["winner"].isin(["first", "second"])]',
        "tests/test_tournament.py::test_the_paper_s_ratings_are_those_of_k_4_not_of_the_32_that_it_states",
    ),
    Fault(
        "the loser of a match pays nothing",
        "course_utils/tournament/ratings.py",
        "theirs -= gained",
        "theirs -= 0 * gained",
        "tests/test_tournament.py::test_elo_equals_evalica_in_a_long_order",
    ),
    Fault(
        "all orders are one order",
        "course_utils/tournament/ratings.py",
        "keys &= ~mask",
        "keys &= 0 * mask",
        "tests/test_tournament.py::test_every_order_is_as_likely_and_is_played_by_elo_s_rule",
    ),
    Fault(
        "verdicts are drawn, not prompts",
        "course_utils/tournament/ratings.py",
        'together.groupby(["stratum", "prompt"]).ngroup().to_numpy()',
        'together.groupby(["stratum", "prompt"]).cumcount().to_numpy()',
        "tests/test_tournament.py::test_a_prompt_is_drawn_with_all_verdicts_on_it",
    ),
    Fault(
        "an endpoint is sent answers unasked",
        "course_utils/tournament/judges.py",
        "send: bool = False",
        "send: bool = True",
        "tests/test_judges.py::test_nothing_is_sent_without_being_asked",
    ),
    Fault(
        "the hub's token goes to any endpoint",
        "course_utils/tournament/judges.py",
        'os.environ.get(KEY) or "none"',
        "os.environ.get(KEY)",
        "tests/test_judges.py::test_the_key_is_the_environment_s_and_never_the_hub_s",
    ),
    Fault(
        "a reply that names two winners counts",
        "course_utils/tournament/judges.py",
        "if len(found) == 1",
        "if found",
        "tests/test_judges.py::test_a_reply_is_read_and_not_guessed",
    ),
    Fault(
        "a vote counts for the other side",
        "course_utils/tournament/vote.py",
        '{"1": "first", "2": "second"',
        '{"2": "first", "1": "second"',
        "tests/test_vote.py::test_votes_are_recorded_for_the_sides_that_were_shown",
    ),
    Fault(
        "a masked end is no trap",
        "course_utils/training/traps.py",
        "== IGNORE != labels[i - 1]",
        "== IGNORE == labels[i - 1]",
        "tests/test_traps.py::test_a_pad_token_that_is_the_end_token_masks_every_end",
    ),
    Fault(
        "a text that begins twice is no trap",
        "course_utils/training/traps.py",
        "ids[:2] == 2 * [",
        "ids[:2] == 3 * [",
        "tests/test_traps.py::test_a_template_and_a_tokenizer_that_both_begin_begin_twice",
    ),
    Fault(
        "a cut answer is looked for behind the first end",
        "course_utils/training/traps.py",
        "last = max((",
        "last = min((",
        "tests/test_traps.py::test_clean_data_has_no_trap",
    ),
    Fault(
        "a special token may stand anywhere",
        "course_utils/training/traps.py",
        "        if not ends_turn and not",
        "        if False and not",
        "tests/test_traps.py::test_a_special_token_in_the_middle_is_all_that_is_found",
    ),
    Fault(
        "a constant schedule warms up",
        "course_utils/training/traps.py",
        "if first == 1.0:",
        "if first == 0.0:",
        "tests/test_traps.py::test_a_warmup_that_never_warms_is_found",
    ),
    Fault(
        "padding is looked for on the left",
        "course_utils/training/traps.py",
        "[:, -1] == 0",
        "[:, 0] == 0",
        "tests/test_traps.py::test_prompts_padded_on_the_right_are_found",
    ),
    Fault(
        "Alpaca's input is lost",
        "course_utils/chat/shapes.py",
        '*filter(None, [row.get("input")])',
        "*filter(None, [])",
        "tests/test_shapes.py::test_pairs_are_a_question_with_its_answer",
    ),
    Fault(
        "a question lies on both sides of a split",
        "course_utils/chat/shapes.py",
        'split_of(thread[0]["content"])',
        'split_of(thread[-1]["content"])',
        "tests/test_shapes.py::test_splits_are_disjoint_and_whole_and_keep_a_question_on_one_side",
    ),
    Fault(
        "own data are trained on unchecked",
        "course_utils/training/__main__.py",
        "if found := check(",
        "if not check(",
        "tests/test_recipe_file.py::test_what_cannot_be_trained_is_said_in_a_line",
    ),
    Fault(
        "a card calls an adapter a whole model",
        "course_utils/training/card.py",
        'library, load = "peft", "model',
        'library, load = library, "model',
        "tests/test_recipe_file.py::test_the_card_says_how_it_was_made",
    ),
    Fault(
        "a rate that YAML reads as text stays one",
        "course_utils/training/recipe.py",
        "return Recipe(**found | numbers)",
        "return Recipe(**numbers | found)",
        "tests/test_recipe_file.py::test_a_recipe_is_read_as_it_is_written",
    ),
    Fault(
        "spread 4-bit weights lie in bytes",
        "course_utils/loading/precisions.py",
        "else torch.uint8,",
        "else torch.float32,",
        "tests/test_recipe_file.py::test_4_bit_weights_that_are_spread_lie_in_the_format_that_is_computed_in",
    ),
    Fault(
        "the pilot's seed is one of the studies",
        "course_utils/studies/off_ceiling.py",
        "PILOT_SEED = 9",
        "PILOT_SEED = 0",
        "tests/test_studies.py::test_no_other_study_has_the_seed_of_the_pilot",
    ),
    Fault(
        "each heat map has a scale of its own",
        "course_utils/plots/areas.py",
        "vmin=0, vmax=largest,",
        "vmin=0, vmax=matrix.max(),",
        "tests/test_plots.py::test_heat_maps_share_one_scale",
    ),
    Fault(
        "parts of a bar lie on each other",
        "course_utils/plots/areas.py",
        "left = left + rows[name].to_numpy()",
        "left = left + 0 * rows[name].to_numpy()",
        "tests/test_plots.py::test_a_stacked_bar_shows_its_parts_end_to_end_and_their_sum",
    ),
    Fault(
        "what a deeper half takes from its lesson is lost",
        "course_utils/lessons.py",
        "return taken or all(",
        "return all(",
        "tests/test_lessons.py::test_a_notebook_that_takes_definitions_from_another_can_be_taken_from",
    ),
    Fault(
        "a swapped start is no other start",
        "notebooks/deeper/01_why_lora.ipynb",
        "nn.init.zeros_(layer.lora_A)",
        "nn.init.ones_(layer.lora_A)",
        "tests/lessons/test_01_why_lora.py::test_a_swapped_start_has_a_at_zero_and_adds_nothing_either",
    ),
    Fault(
        "overlap forgets the smaller subspace",
        "notebooks/deeper/01_why_lora.ipynb",
        "/ min(first.shape[1], second.shape[1])).item()",
        "/ max(first.shape[1], second.shape[1])).item()",
        "tests/lessons/test_01_why_lora.py::test_subspace_overlap_is_one_inside_zero_across_and_small_by_chance",
    ),
    Fault(
        "the rounding error is measured against the weights",
        "notebooks/deeper/01_why_lora.ipynb",
        "norm += (scale * update).square().sum().item()",
        "norm += exact.square().sum().item()",
        "tests/lessons/test_01_why_lora.py::test_rounding_over_update_is_known_for_one_number",
    ),
    Fault(
        "the drafts divide by the root of r",
        LORA,
        "super().__init__(base, r)\n        self.scaling = lora_alpha / r",
        "super().__init__(base, r)\n        self.scaling = lora_alpha / r**0.5",
        f"{LORA}::ccab838e",
    ),
    Fault(
        "rank is counted by the values, not by their squares",
        LORA,
        "dtype=torch.float64).square().cumsum(0)",
        "dtype=torch.float64).cumsum(0)",
        f"{LORA}::da088028",
    ),
    Fault(
        "the base model is not frozen",
        LORA,
        "model.requires_grad_(False)\n    for name, module in list",
        "for name, module in list",
        f"{LORA}::58873788",
    ),
    Fault(
        "a merged layer keeps its detour",
        LORA,
        "setattr(model.get_submodule(parent), child, module.merge())",
        "module.merge()",
        f"{LORA}::2afe2bb2",
    ),
    Fault(
        "virtual tokens are far from padded prompts",
        "course_utils/evaluation/answers.py",
        "padded=not _has_virtual_tokens(model)",
        "padded=True",
        "tests/test_virtual_tokens.py::test_answers_to_prompts_of_different_lengths_are_those_of_each_prompt_alone",
    ),
    Fault(
        "virtual tokens are scored in place of a row's first ones",
        "course_utils/batches.py",
        "values[:, -counted.shape[1] :][",
        "values[:, : counted.shape[1]][",
        "tests/test_virtual_tokens.py::test_the_loss_of_a_padded_batch_is_that_of_its_rows_and_of_pefts_own_forward",
    ),
    Fault(
        "what virtual tokens move at once is not counted as moved",
        "course_utils/studies/probe.py",
        "with model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():",
        "with nullcontext():",
        "tests/test_methods.py::test_what_a_method_moves_is_measured_from_the_base_model",
    ),
    Fault(
        "DoRA is LoRA",
        "course_utils/studies/methods.py",
        '{**LORA, "use_dora": True}',
        '{**LORA, "use_dora": False}',
        "tests/test_methods.py::test_each_method_trains_as_many_numbers_as_its_formula_says",
    ),
    Fault(
        "an adapter's bytes are those of its configuration",
        "course_utils/studies/methods.py",
        "(Path(folder) / WEIGHTS).stat()",
        '(Path(folder) / "adapter_config.json").stat()',
        "tests/test_methods.py::test_the_bytes_are_those_of_the_file",
    ),
    Fault(
        "a place has more than its budget",
        "course_utils/studies/placement.py",
        '_lora(26, ["q_proj", "v_proj"], v_proj=27)',
        '_lora(27, ["q_proj", "v_proj"], v_proj=27)',
        "tests/test_methods.py::test_all_places_have_the_same_budget",
    ),
    Fault(
        "half an adapter is a whole one",
        "course_utils/loading/adapters.py",
        '"missing": sorted(known.keys() - found.keys()),',
        '"missing": [],',
        "tests/test_adapters.py::"
        "test_what_is_not_whole_or_not_for_this_model_is_refused_and_the_model_left_alone[a layer missing]",
    ),
    Fault(
        "an adapter of another base is taken",
        "course_utils/loading/adapters.py",
        "    _check_base(folder, config, base)\n",
        "",
        "tests/test_adapters.py::"
        "test_what_is_not_whole_or_not_for_this_model_is_refused_and_the_model_left_alone[another base]",
    ),
    Fault(
        "a start by a draw is loaded",
        "course_utils/loading/adapters.py",
        'NOT_REPEATED = ("pissa_niter", "lora_ga", ',
        'NOT_REPEATED = ("lora_ga", ',
        "tests/test_adapters.py::test_a_drawn_start_does_not_come_back_from_its_file",
    ),
    Fault(
        "an adapter replaces the one of the same name",
        "course_utils/loading/adapters.py",
        "    if name in model.peft_config:\n",
        "    if not name:\n",
        "tests/test_adapters.py::test_adapters_lie_beside_each_other_and_each_is_its_own",
    ),
    Fault(
        "loaded virtual tokens are trained",
        "course_utils/loading/adapters.py",
        "requires_grad_(trainable)  # PEFT",
        "requires_grad_(True)  # PEFT",
        "tests/test_adapters.py::test_what_was_saved_is_what_is_loaded",
    ),
    Fault(
        "what the forward throws away is an activation",
        "course_utils/memory/measured.py",
        "kept.append(weakref.ref(held))",
        "kept.append(lambda: held)",
        "tests/test_memory.py::test_activations_are_what_can_be_reached_from_the_loss[dora]",
    ),
    Fault(
        "Lit-GPT's keys get the adapter of the values",
        "course_utils/lit.py",
        'zip("qkv", block.attn.qkv.enable_lora, strict=True)',
        'zip("qvk", block.attn.qkv.enable_lora, strict=True)',
        "tests/test_lit.py::test_with_the_same_adapter_the_losses_and_gradients_are_those_of_peft",
    ),
    Fault(
        "Lit-GPT scales the adapter otherwise",
        "course_utils/lit.py",
        "part.lora_variant or part.scaling[adapter] != module.scaling",
        "part.lora_variant",
        "tests/test_lit.py::test_an_adapter_that_does_not_fit_is_refused[rslora]",
    ),
    Fault(
        "the turned part of Pythia's heads is all of them",
        "course_utils/lit.py",
        'rope.get("partial_rotary_factor", 1.0)',
        "1.0",
        "tests/test_lit.py::test_logits_are_those_of_transformers[pythia]",
    ),
    Fault(
        "all of Lit-GPT's weights are trained",
        "course_utils/lit.py",
        "    mark_only_lora_as_trainable(gpt)\n",
        "",
        "tests/test_lit.py::test_each_switch_trains_as_many_numbers_as_peft_on_the_same_modules",
    ),
    Fault(
        "Lit-GPT is installed with what it asks for",
        "Makefile",
        "--no-deps -r requirements-litgpt.txt",
        "-r requirements-litgpt.txt",
        "tests/test_packaging.py::test_lit_gpt_is_a_step_of_the_set_up_and_no_extra",
    ),
    Fault(
        "a mistake is named though another one is the same",
        "course_utils/exercises/checker.py",
        "    if len(made) == 1:",
        "    if made:",
        "tests/test_exercise_checker.py::test_of_two_recorded_mistakes_that_are_the_same_neither_is_named",
    ),
    Fault(
        "who fails like the solution is right",
        "course_utils/exercises/checker.py",
        "for broken in (found.error for found in expected.values() if found.error):",
        "for broken in ():",
        "tests/test_exercise_checker.py::test_a_solution_that_fails_is_no_answer",
    ),
    Fault(
        "counts may be off by a few",
        "course_utils/exercises/battery.py",
        "return yours == expected if isinstance(expected, int) else math.isclose(yours, expected, rel_tol=rtol)",
        "return math.isclose(yours, expected, rel_tol=rtol)",
        "tests/test_exercise_checker.py::test_whole_numbers_are_exact_and_others_nearly",
    ),
    Fault(
        "a result without a gradient passes for one that has it",
        "course_utils/exercises/battery.py",
        "yours.requires_grad >= expected.requires_grad and ",
        "",
        "tests/test_exercise_checker.py::test_what_differs_is_said_in_a_sentence",
    ),
    Fault(
        "an input may be changed",
        "course_utils/exercises/outcomes.py",
        "before = dict(parts(copy.deepcopy(given)))",
        "before = dict(parts(given))",
        "tests/test_exercise_checker.py::test_an_input_that_is_changed_is_named_even_if_the_result_is_right",
    ),
    Fault(
        "an error is told with the checker's own lines",
        "course_utils/exercises/outcomes.py",
        "if frame.filename == file]",
        "]",
        "tests/test_exercise_checker.py::test_an_error_is_told_with_its_line_and_without_a_trace",
    ),
    Fault(
        "a stub shows a line of the solution",
        "course_utils/exercises/exercise.py",
        "[: docstring.end_lineno]",
        "[: docstring.end_lineno + 1]",
        "tests/test_exercises.py::test_the_stub_is_the_head_of_the_solution_and_counts_as_not_attempted",
    ),
    Fault(
        "a copy of the exercises overwrites answers",
        "course_utils/exercises/__main__.py",
        "if copy.exists():",
        "if False:",
        "tests/test_exercises.py::test_exercises_are_copied_once",
    ),
    Fault(
        "a notebook of exercises loses its outputs at every look",
        "course_utils/course/workbooks.py",
        "MEASURED.sub(UNMEASURED, cell.source)",
        "cell.source",
        "tests/test_exercises.py::test_a_notebook_keeps_its_outputs_as_long_as_its_cells_are_current",
    ),
    Fault(
        "no input tells one mistake of an exercise from the solution",
        "course_utils/exercises/lora/equally_good.py",
        """        "the same seeds in another order": ({2: 0.699, 0: 0.801, 1: 0.60}, theirs, 0.05),\n""",
        "",
        "tests/test_exercises.py::test_the_inputs_tell_all_mistakes_apart[equally_good]",
    ),
    Fault(
        "a model whose 4-bit weights come back wrong is loaded",
        "course_utils/loading/models.py",
        "        check_restored(model)\n",
        "        pass\n",
        "tests/test_loading.py::test_a_model_that_comes_back_wrongly_is_not_loaded",
    ),
    Fault(
        "4-bit weights are compared with themselves",
        "course_utils/loading/restored.py",
        "    one_row.shape = torch.Size([1, state.shape.numel()])\n",
        "",
        "tests/test_loading.py::test_a_model_that_comes_back_wrongly_is_not_loaded",
    ),
    Fault(
        "the threads of a study may be longer than its recipe says",
        "course_utils/studies/conversations.py",
        '{"max_length": recipe.max_length, "train_on": recipe.train_on}',
        '{"train_on": recipe.train_on}',
        "tests/test_qlora_study.py::test_threads_are_those_of_the_recipe_in_all_three_splits",
    ),
    Fault(
        "weights stored in bf16 are computed with in bf16",
        "course_utils/studies/precisions.py",
        "        model.float()",
        "        pass",
        "tests/test_qlora_study.py::test_weights_stored_in_bf16_are_rounded_and_computed_with_in_fp32",
    ),
    Fault(
        "the test conversations choose the learning rate",
        "course_utils/studies/qlora.py",
        'last.groupby("lr")["validation_nll"]',
        'last.groupby("lr")["test_nll"]',
        "tests/test_qlora_study.py::test_arms_are_compared_seed_by_seed_at_their_own_rates_or_at_one",
    ),
    Fault(
        "an interval that reaches beyond the margin is called equal",
        "course_utils/studies/qlora.py",
        "if -margin < low and high < margin:",
        "if -margin < difference < margin:",
        "tests/test_qlora_study.py::test_the_words_are_those_of_the_rule",
    ),
    Fault(
        "a level of NF4 is off by a thousandth",
        QLORA,
        "    return levels / levels.max()",
        "    return levels / levels.max() + 1e-3 * (torch.arange(16) == 3)",
        f"{QLORA_TESTS}::test_nf4_levels_are_bitsandbytes_bit_for_bit_and_zero_is_exact",
    ),
    Fault(
        "the zero of NF4 is not exact",
        QLORA,
        "sorted([*negative, 0.0, *positive])",
        "sorted([*negative, 1e-3, *positive])",
        f"{QLORA_TESTS}::test_nf4_levels_are_bitsandbytes_bit_for_bit_and_zero_is_exact",
    ),
    Fault(
        "a block has one weight more",
        QLORA,
        "def quantize(weight: torch.Tensor, blocksize: int = 64)",
        "def quantize(weight: torch.Tensor, blocksize: int = 65)",
        f"{QLORA_TESTS}::test_blockwise_nf4_is_bitsandbytes_bit_for_bit",
    ),
    Fault(
        "the two indexes of a byte are swapped",
        QLORA,
        "index[0::2] << 4 | index[1::2]",
        "index[1::2] << 4 | index[0::2]",
        f"{QLORA_TESTS}::test_blockwise_nf4_is_bitsandbytes_bit_for_bit",
    ),
    Fault(
        "double quantization does not subtract the mean",
        QLORA,
        "rows = (absmax - offset).reshape(-1, 256)",
        "rows = absmax.reshape(-1, 256)",
        f"{QLORA_TESTS}::test_double_quantization_is_bitsandbytes_but_where_its_search_takes_a_neighbor",
    ),
    Fault(
        "a packed weight counts with half its numbers",
        "course_utils/memory/measured.py",
        "parameter.numel() if state is None else state.shape.numel()",
        "parameter.numel()",
        "tests/test_memory.py::test_4_bit_layer_has_the_bits_of_the_paper",
    ),
    Fault(
        "an embedding of the base is trained beside the adapter",
        QLORA,
        "model = get_peft_model(in_4_bits, config)",
        "model = get_peft_model(in_4_bits, config)\nin_4_bits.get_input_embeddings().requires_grad_(True)",
        f"{QLORA}::q24-verdict",
    ),
    Fault(
        "the base passes no gradient on",
        QLORA,
        "model = get_peft_model(in_4_bits, config)",
        "model = get_peft_model(in_4_bits, config)\n"
        "for m in model.modules():\n    if isinstance(m, Linear4bit):\n"
        "        m.register_forward_hook(lambda module, inputs, output: output.detach())",
        f"{QLORA}::reach",
    ),
    Fault(
        "a cut layer still passes a gradient on",
        QLORA,
        "    return output.detach()",
        "    return output.clone()",
        f"{QLORA_TESTS}::test_a_cut_layer_has_the_same_output_and_passes_no_gradient_on",
    ),
    Fault(
        "what was merged stays in 4 bits",
        QLORA,
        'compute_dtype=torch.float32, device="cpu").dequantize()',
        'compute_dtype=torch.float32, device="cpu")',
        f"{QLORA}::merge-table",
    ),
    Fault(
        "a page that comes back has forgotten its states",
        QLORA,
        "self.card[name] = self.cpu.pop(name).clone()",
        "self.card[name] = torch.zeros_like(self.cpu.pop(name))",
        f"{QLORA_TESTS}::test_paging_changes_no_loss_and_moves_nothing_without_a_spike",
    ),
    Fault(
        "the page used last moves out first",
        QLORA,
        "self.card.popitem(last=False)",
        "self.card.popitem(last=True)",
        f"{QLORA_TESTS}::test_pages_move_out_in_the_order_of_their_last_use_and_come_back_unaltered",
    ),
    Fault(
        "a scale of MXFP4 is no power of two",
        QLORA,
        ".log2().floor()\n",
        ".log2()\n",
        f"{QLORA_TESTS}::test_nvfp4_has_a_scale_that_e4m3_can_hold_and_mxfp4_a_power_of_two",
    ),
    Fault(
        "LoftQ keeps one direction less",
        QLORA,
        "low_rank = (U[:, :r] * S[:r]) @ Vh[:r]",
        "low_rank = (U[:, : r - 1] * S[: r - 1]) @ Vh[: r - 1]",
        f"{QLORA_TESTS}::test_loftq_starts_nearer_to_the_weights_than_quantizing_alone",
    ),
    Fault(
        "the planner forgets the constants of quantization",
        "course_utils/memory/weights.py",
        "        constants += scales * tensor.times",
        "        constants += 0 * scales",
        "tests/test_planned.py::test_quantized_weights_have_the_bytes_of_bitsandbytes",
    ),
    Fault(
        "the planner forgets the logits",
        "course_utils/memory/parts.py",
        '"loss": (before, whole + kept.rest, scored, copies[0]),',
        '"loss": (before, whole + kept.rest, 0 * scored, copies[0]),',
        "tests/test_planned.py::test_the_peak_is_that_of_torchs_own_accounting",
    ),
    Fault(
        "gradients of accumulated batches are forgotten",
        "course_utils/memory/parts.py",
        "before = gradients if settings.accumulation > 1 else 0",
        "before = 0",
        "tests/test_planned.py::test_gradients_stay_where_batches_are_accumulated",
    ),
    Fault(
        "checkpointed layers are computed again for nothing",
        "course_utils/memory/parts.py",
        "again = kept.largest if settings.checkpointing else 0",
        "again = 0",
        "tests/test_planned.py::test_a_checkpointed_layer_is_there_again_when_its_turn_comes",
    ),
    Fault(
        "a mask of dropout is as wide as its input",
        "course_utils/memory/activations.py",
        "torch.empty_like(x, dtype=torch.bool)",
        "torch.empty_like(x)",
        "tests/test_planned.py::test_dropout_keeps_a_mask_of_one_byte_as_on_a_gpu",
    ),
    Fault(
        "the first layer stands for all",
        "course_utils/memory/skeleton.py",
        "sorted(kinds.index(kind, 1) for kind in others)",
        "sorted(kinds.index(kind, 1) for kind in [kinds[-1]])",
        "tests/test_planned.py::test_layers_of_other_kinds_are_counted_as_what_they_are",
    ),
    Fault(
        "the largest that fits is one too large",
        "course_utils/memory/answers.py",
        "    return low\n",
        "    return low + 1\n",
        "tests/test_planned.py::test_the_largest_that_fits_is_the_largest",
    ),
    Fault(
        "litgpt's padding keeps nothing",
        "course_utils/memory/frameworks.py",
        "if len(chosen) < len(fused):",
        "if len(chosen) > len(fused):",
        "tests/test_planned.py::test_litgpts_layer_keeps_what_is_written_down_for_it",
    ),
    Fault(
        "a plan fits where it does not",
        "course_utils/memory/planned.py",
        "missing(self.costs, self.settings) <= 0",
        "missing(self.costs, self.settings) >= 0",
        "tests/test_planned.py::test_what_ran_out_of_memory_does_not_fit",
    ),
    Fault(
        "heads of keys and values are as many as of queries",
        "course_utils/memory/presets.py",
        '{"num_key_value_heads": groups}',
        '{"num_key_value_heads": heads}',
        "tests/test_planned.py::test_presets_have_the_published_numbers_of_parameters",
    ),
    Fault(
        "GiB are taken for GB",
        "course_utils/memory/published.py",
        '"GiB": 2**30',
        '"GiB": 1e9',
        "tests/test_planned.py::test_a_row_is_compared_in_its_own_unit",
    ),
    Fault(
        "a rank of zero is planned",
        "course_utils/memory/settings.py",
        'for name in ("r", "micro_batch",',
        'for name in ("micro_batch",',
        "tests/test_planned.py::test_what_cannot_be_planned_gets_a_sentence",
    ),
    Fault(
        "the command prints no JSON",
        "course_utils/memory/__main__.py",
        "found.to_json() if as_json else found",
        "found",
        "tests/test_planned.py::test_the_command_prints_a_table_or_json",
    ),
    Fault(
        "segments keep no inputs",
        "notebooks/deeper/03_memory.ipynb",
        "min(math.ceil(layers / s) * i + s * a",
        "min(i + s * a",
        "tests/lessons/test_03_memory.py::test_the_best_segments_are_about_the_square_root",
    ),
    Fault(
        "gradients stay with the optimizer in the backward pass",
        "notebooks/deeper/03_memory.ipynb",
        'moments.loc["gradients"] = 0',
        'moments.loc["gradients"] *= 1',
        "tests/lessons/test_03_memory.py::test_what_leaves_the_gpu_is_subtracted_where_it_lies",
    ),
    Fault(
        "packed conversations see each other",
        "course_utils/batches.py",
        '{"labels", "attention_mask"} if',
        '{"labels"} if',
        "tests/test_guanaco_study.py::test_packed_conversations_are_kept_apart_by_their_positions_alone",
    ),
    Fault(
        "positions go on from one packed conversation to the next",
        "course_utils/studies/guanaco.py",
        'row["position_ids"] = [place for one in examples for place in range(len(one["input_ids"]))]',
        'row["position_ids"] = list(range(len(row["input_ids"])))',
        "tests/test_guanaco_study.py::test_packed_conversations_are_kept_apart_by_their_positions_alone",
    ),
    Fault(
        "a conversation predicts the first token of the next",
        "course_utils/studies/guanaco.py",
        '[IGNORE, *one["labels"][1:]]',
        'one["labels"]',
        "tests/test_guanaco_study.py::test_no_conversation_predicts_the_next",
    ),
    Fault(
        "the study of conversations draws a quarter that is no part of the half",
        "course_utils/studies/guanaco.py",
        "random.Random(recipe.seed).sample",
        "random.Random(recipe.seed + SHARES.get(recipe.subset, 1)).sample",
        "tests/test_guanaco_study.py::test_a_quarter_is_a_part_of_the_half_and_every_seed_draws_its_own",
    ),
    Fault(
        "being better on one's own kind of reply is taken for evidence",
        "course_utils/studies/guanaco.py",
        '(rows["best_nll"] + rows["worst_nll"]) / 2',
        'rows["best_nll"]',
        "tests/test_guanaco_study.py::test_the_ranking_is_judged_by_the_mean_of_both_tests",
    ),
    Fault(
        "an adapter that was saved before training passes",
        "course_utils/training/shipped.py",
        "torch.equal(saved[name].to(value), value)",
        "saved[name].shape == value.shape",
        "tests/test_shipped.py::test_an_adapter_that_was_saved_before_training_is_not_what_was_trained",
    ),
    Fault(
        "a merge into the wrong base passes",
        "course_utils/training/shipped.py",
        "if not apart <= MARGIN:",
        "if apart <= -MARGIN:",
        "tests/test_shipped.py::test_a_merge_into_other_weights_is_found",
    ),
    Fault(
        "IA3's factors stand behind down_proj",
        PEFT_LESSON,
        'feedforward: tuple[str, ...] = ("down_proj",)',
        "feedforward: tuple[str, ...] = ()",
        f"{PEFT_LESSON}::ia3-equal",
    ),
    Fault(
        "the places of virtual tokens are counted in the loss",
        PEFT_LESSON,
        "logits[:, P:-1].flatten(0, 1)",
        "logits[:, : -P - 1].flatten(0, 1)",
        f"{PEFT_LESSON}::prompt-loss",
    ),
    Fault(
        "prefix tuning takes keys for values",
        PEFT_LESSON,
        "for layer, (keys, values) in enumerate",
        "for layer, (values, keys) in enumerate",
        f"{PEFT_TESTS}::test_a_prefix_of_real_keys_and_values_is_that_text",
    ),
    Fault(
        "virtual tokens leave the attention mask as it was long",
        PEFT_LESSON,
        "mask = torch.cat([attention_mask.new_ones(rows, len(self.prompt)), attention_mask], dim=1)",
        "mask = torch.cat([attention_mask.new_zeros(rows, len(self.prompt)), attention_mask], dim=1)",
        f"{PEFT_TESTS}::test_a_prompt_of_real_embeddings_is_that_text",
    ),
    Fault(
        "P-tuning leaves its network out",
        PEFT_LESSON,
        "return self.network(self.prompt)",
        "return self.prompt",
        f"{PEFT_LESSON}::f14",
    ),
    Fault(
        "DoRA takes the length of columns",
        PEFT_LESSON,
        "(self.m / adapted.norm(dim=1).detach())[:, None] * adapted",
        "self.m[:, None] / adapted.norm().detach() * adapted",
        f"{PEFT_TESTS}::test_dora_starts_as_its_base_has_rows_of_length_m_and_equals_pefts",
    ),
    Fault(
        "DoRA takes gradients of the norm",
        PEFT_LESSON,
        "adapted.norm(dim=1).detach()",
        "adapted.norm(dim=1)",
        f"{PEFT_LESSON}::l18",
    ),
    Fault(
        "LoRA on other modules than the text says",
        PEFT_LESSON,
        'QV = {"target_modules": ["q_proj", "v_proj"]',
        'QV = {"target_modules": ["q_proj", "o_proj"]',
        f"{PEFT_LESSON}::count-ten",
    ),
    Fault(
        "virtual tokens are trained, and not used to generate",
        PEFT_LESSON,
        "used = theirs.generate(input_ids=prompt",
        "used = theirs.get_base_model().generate(input_ids=prompt",
        f"{PEFT_LESSON}::f14",
    ),
    Fault(
        "an adapter is saved before it is trained",
        PEFT_LESSON,
        "    _ = training.fit(model, examples, recipe)\n    model.save_pretrained(folder)\n",
        "    model.save_pretrained(folder)\n    _ = training.fit(model, examples, recipe)\n",
        f"{PEFT_LESSON}::reload",
    ),
    Fault(
        "an adapter is put on another base",
        PEFT_LESSON,
        'reloaded = loading.load_adapter(lora.base_model(), files / "dates"',
        'reloaded = loading.load_adapter(lora.rounded(lora.base_model()), files / "dates"',
        f"{PEFT_LESSON}::reload",
    ),
    Fault(
        "an adapter is not active",
        PEFT_LESSON,
        "    reloaded.set_adapter(task)\n    under[task]",
        "    under[task]",
        f"{PEFT_LESSON}::switch",
    ),
    Fault(
        "two adapters are swapped in a batch",
        PEFT_LESSON,
        "adapter_names=names)",
        "adapter_names=[names[1], names[0], *names[2:]])",
        f"{PEFT_LESSON}::per-row",
    ),
    Fault(
        "weights of a combination are ignored",
        PEFT_LESSON,
        '["dates", "units"], [0.7, 0.3], adapter_name',
        '["dates", "units"], [1.0, 1.0], adapter_name',
        f"{PEFT_LESSON}::combine",
    ),
    Fault(
        "TIES averages signs that do not agree",
        "notebooks/deeper/02_placement.ipynb",
        "agree = (torch.sign(trimmed) == torch.sign(trimmed.sum(dim=0))) & (trimmed != 0)",
        "agree = trimmed != 0",
        "tests/lessons/test_02_placement.py::test_ties_equals_pefts_and_brute_force",
    ),
    Fault(
        "an installed package claims to be a clone",
        "course_utils/core/files.py",
        "    if not in_clone():",
        "    if False:",
        "tests/test_files.py::test_a_command_that_needs_the_notebooks_says_so_where_there_are_none",
    ),
    Fault(
        "a gated model is said not to exist",
        "course_utils/core/hub.py",
        "    (GatedRepoError,",
        "    (PermissionError,",
        "tests/test_core_hub.py::test_the_reason_is_what_the_hub_said_first",
    ),
    Fault(
        "a model that the GPU has no room for is fetched",
        "course_utils/loading/profiles.py",
        "    if not wrong:",
        "    if True:",
        "tests/test_profiles.py::test_the_default_model_takes_its_place_and_a_sentence_says_why",
    ),
]
SEEN_IN_CELLS = {  # faults that a test notices, and a cell of the lesson as well
    "lora_alpha / r is not applied": f"{LORA}::5564c5bb",
    "A and B start the wrong way round": f"{LORA}::5564c5bb",
    "attention layers are skipped": f"{LORA}::58873788",
    "merging forgets the scale": f"{LORA}::09f50757",
    "a level of NF4 is off by a thousandth": f"{QLORA}::nf4-levels",
    "the zero of NF4 is not exact": f"{QLORA}::nf4-levels",
    "a block has one weight more": f"{QLORA}::comparisons",
    "the two indexes of a byte are swapped": f"{QLORA}::comparisons",
    "double quantization does not subtract the mean": f"{QLORA}::dq-compare",
    "a packed weight counts with half its numbers": f"{QLORA}::m17-verdict",
    "a cut layer still passes a gradient on": f"{QLORA}::f30-verdict",
    "a page that comes back has forgotten its states": f"{QLORA}::paged-verdicts-code",
    "LoftQ keeps one direction less": f"{QLORA}::loftq-error",
}
NAMED = {fault.name: fault for fault in FAULTS}
FAULTS += [
    replace(NAMED[name], name=f"{name}, seen in its cell", caught_by=cell, quick=False)
    for name, cell in SEEN_IN_CELLS.items()
]
FAULTS += [
    replace(NAMED[name], name=f"{name}, seen in its cell", caught_by="notebooks/deeper/03_memory.ipynb::e3a00007")
    for name in ("the planner forgets the constants of quantization", "the planner forgets the logits")
]
