"""From a recipe in a file to an adapter with its card, in one command that goes on where it was killed."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoTokenizer

from course_utils import chat, evaluation, loading, training
from course_utils.core.files import ROOT
from course_utils.loading.precisions import quantization_config
from course_utils.training import LORA, Recipe
from course_utils.training.__main__ import main
from course_utils.training.card import Run, model_card
from tests.conftest import tiny, toy_tokenizer
from tests.test_shapes import SPEAKERS

ADAPTER = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj", "v_proj"]}
SETTINGS = {"adapter": ADAPTER, "data": "own.jsonl", "steps": 6, "batch_size": 4, "lr": "1e-2", "max_length": 200}
THREADS = [chat.question(f"What is {n} and {n}?", f"It is {2 * n}.") for n in range(40)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A small model with its tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = toy_tokenizer(eos_token="</s>", pad_token="<s>")
    tiny(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def written(folder: Path, base: Path, threads: list = THREADS, **changes: object) -> Path:
    """A recipe with data in ShareGPT's shape beside it."""
    rows = [
        {"conversations": [{"from": SPEAKERS[turn["role"]], "value": turn["content"]} for turn in thread]}
        for thread in threads
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump({"model": str(base), **SETTINGS, **changes}), encoding="utf-8")
    return path


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def done(base, tmp_path_factory) -> Path:
    """The folder that one whole run leaves."""
    folder = tmp_path_factory.mktemp("done")
    main([str(written(folder, base))])
    return folder / "made"


def test_own_data_become_an_adapter_that_plain_peft_loads(base, done):
    """And whose held-out loss, measured in another way, is that of its card."""
    model = AutoPeftModelForCausalLM.from_pretrained(done).eval()
    tokenizer = AutoTokenizer.from_pretrained(done)
    held_out = [chat.encode(thread, tokenizer) for thread in chat.load_threads(done.parent / "own.jsonl", "validation")]
    text = (done / "README.md").read_text(encoding="utf-8")
    before, after = map(float, re.findall(r"(\d+\.\d{3}) (?:before training|after it)", text))
    assert evaluation.nll(model, held_out).mean == pytest.approx(after, abs=0.0006)
    with model.disable_adapter():
        assert evaluation.nll(model, held_out).mean == pytest.approx(before, abs=0.0006)
    assert after < before
    assert f"Loss on {len(held_out)} held-out threads" in text


def test_the_card_says_how_it_was_made(base, done):
    text = (done / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---")[1])
    assert header == {"base_model": str(base), "library_name": "peft", "tags": ["lora", "sft"]}
    stated = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert Recipe(**stated) == training.read_recipe(done.parent / "made.yaml")
    count = len(chat.load_threads(done.parent / "own.jsonl", "train"))
    assert f"fine-tuned (lora) on {count} threads of `own.jsonl`, in 6 steps, by 1 process." in text


@pytest.mark.parametrize(
    ("precision", "compute", "dtype"), [("nf4-dq", "fp32", torch.float32), ("fp32", None, torch.float32)]
)
def test_the_lines_on_a_card_load_the_weights_that_it_was_trained_on(tmp_path, precision, compute, dtype):
    """An adapter of a 4-bit base belongs on that base; the lines are run as they stand there."""
    tiny(hidden_size=64).save_pretrained(tmp_path / "base")  # whole blocks in a row
    recipe = Recipe(
        model=str(tmp_path / "base"), precision=precision, compute_dtype=compute, adapter=ADAPTER, lr=1e-2, steps=1
    )
    trained = training.prepare_model(recipe, "cpu").eval()
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    trained.save_pretrained(tmp_path / "adapter")
    said = Run("made", recipe, recipe.model, 1, 0, [1.0], None, None, 1)
    (lines,) = re.findall(r"```python\n(.*?)```", model_card(said), re.DOTALL)
    there = {"folder": str(tmp_path / "adapter")}
    exec(lines, there)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        model = loading.make_safe_to_train(there["model"]).eval()  # other kernels round otherwise
        assert torch.equal(model(ids).logits, trained(ids).logits)
    assert model.get_input_embeddings().weight.dtype == dtype


def test_the_same_command_again_trains_no_more(done):
    before, checkpoints = adapter(done), {path: path.stat().st_mtime_ns for path in done.glob("checkpoint-*/*")}
    main([str(done.parent / "made.yaml")])
    assert {path: path.stat().st_mtime_ns for path in done.glob("checkpoint-*/*")} == checkpoints
    for name, tensor in adapter(done).items():
        assert torch.equal(tensor, before[name]), name


def test_another_recipe_does_not_go_on_from_it(done, base):
    path = done.parent / "other.yaml"
    settings = yaml.safe_load((done.parent / "made.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(settings | {"lr": 0.02}), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"holds what another recipe has trained \(lr 0\.01 there, 0\.02 now\)"):
        main([str(path), "--output-dir", str(done)])
    path.write_text(yaml.safe_dump(settings | {"steps": 3}), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"\(steps 6 there, 3 now\)"):
        main([str(path), "--output-dir", str(done)])


def test_a_folder_of_somebody_else_is_left_as_it_is(base, tmp_path):
    path = written(tmp_path, base)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit, match="made holds a README.md that no training has left there"):
        main([str(path)])
    recipe = path.rename(tmp_path / "recipe.yaml")
    with pytest.raises(SystemExit, match="recipe.yaml would be written over"):
        main([str(recipe), "--output-dir", str(tmp_path)])
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["README.md"]


def test_a_base_beside_the_work_is_named_so_that_it_is_found_from_elsewhere(base, tmp_path, monkeypatch):
    """A relative name would mean another model in another folder."""
    monkeypatch.chdir(base.parent)
    main([str(written(tmp_path, Path(base.name), steps=1))])
    stored = json.loads((tmp_path / "made" / "adapter_config.json").read_text(encoding="utf-8"))
    assert stored["base_model_name_or_path"] == str(base)
    assert training.read_recipe(tmp_path / "made" / "recipe.yaml").model == str(base)


def test_full_fine_tuning_is_saved_whole_and_a_small_file_has_nothing_held_out(base, tmp_path):
    main([str(written(tmp_path, base, THREADS[:4], adapter=None, steps=1))])
    text = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "library_name: transformers" in text
    assert "No thread was held out" in text
    loading.load_model(str(tmp_path / "made"), "fp32")


def test_where_nothing_held_out_can_be_used_it_trains_and_says_so(base, tmp_path, capsys):
    """Of a few own rows, those that a hash holds out may be too long, or have no answer."""
    path = written(tmp_path, base, steps=1)
    held_out = [json.dumps(thread) for thread in chat.load_threads(tmp_path / "own.jsonl", "validation")]
    assert 0 < len(held_out) < len(THREADS)
    longer = [chat.question(t[0]["content"], "It is. " * 200) if json.dumps(t) in held_out else t for t in THREADS]
    main([str(written(tmp_path, base, longer, steps=1))])
    assert "No thread was held out" in (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    said = capsys.readouterr().err
    assert f"No conversation is held out: No thread can be used: {len(held_out)} longer than 200 tokens." in said
    assert path.exists()


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ({"role": "assistant", "content": " "}, "own.jsonl, line 38: Thread, turn 1 .*the content is blank"),
        ({"role": "system", "content": "Be short."}, "own.jsonl, line 38: .*the template has no role 'system'"),
    ],
)
def test_a_turn_that_cannot_be_learned_is_named_by_its_line(base, tmp_path, turn, words):
    path = written(tmp_path, base)
    rows = [{"messages": thread} for thread in THREADS]
    rows[37] = {"messages": [THREADS[37][0], turn]}
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(SystemExit, match=words):
        main([str(path)])


def test_a_file_of_which_all_is_held_out_says_what_to_do(base, tmp_path):
    split = chat.load_threads(written(tmp_path, base).parent / "own.jsonl", "test")
    with pytest.raises(SystemExit, match="all of its 1 threads lie in other parts than 'train', .* Add some"):
        main([str(written(tmp_path, base, split[:1]))])


def test_what_is_trained_has_its_recipe_beside_it(done):
    assert training.read_recipe(done / "recipe.yaml") == training.read_recipe(done.parent / "made.yaml")


KILLED = """
import sys
from transformers import TrainerCallback
from course_utils.training import sft
from course_utils.training.__main__ import main
from course_utils.training.card import Run, model_card
import os, signal

class Killed(TrainerCallback):
    def on_save(self, args, state, *_, **__):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

made = sft.sft_trainer
def watched(*arguments, **options):
    trainer = made(*arguments, **options)
    trainer.add_callback(Killed())
    return trainer

import course_utils.training.__main__ as command
command.sft_trainer = watched
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_adapter(base, done, tmp_path):
    """Killed (SIGKILL) behind its third step, and taken up by the same command: bit for bit what one run gives."""
    path = written(tmp_path, base)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "made" / "adapter_model.safetensors").exists()
    main([str(path)])
    for name, tensor in adapter(tmp_path / "made").items():
        assert torch.equal(tensor, adapter(done)[name]), name
    pages = [(folder / "README.md").read_text(encoding="utf-8") for folder in (tmp_path / "made", done)]
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_two_processes_train_by_the_same_file(base, done, tmp_path):
    """Half the batch in each: the same adapter but for rounding, one card, and it says how many there were."""
    path = written(tmp_path, base, batch_size=2)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launch, "-m", "course_utils.training", str(path)]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, **alone}, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stderr
    assert "by 2 processes." in (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    one, two = adapter(done), adapter(tmp_path / "made")
    apart = torch.cat([(two[name] - one[name]).flatten() for name in one if "lora_B" in name])
    update = torch.cat([one[name].flatten() for name in one if "lora_B" in name])  # B starts at zero
    assert apart.norm() <= 0.01 * update.norm()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": None}, "The recipe names no data"),
        ({"data": "lost.jsonl"}, "There is no file .*lost.jsonl"),
        ({"max_length": 3}, "No thread can be used: .* longer than 3 tokens"),
        ({"schedule": "linear", "warmup_steps": 6}, "warmup_never_warms, 6 steps of warm-up in a run of 6: "),
        ({"rate": 1}, "made.yaml: a recipe has no field 'rate'; it has model, revision"),
        ({"lr": "fast"}, "made.yaml: lr is 'fast'; it has to be a number."),
        ({"batch_size": 0}, "made.yaml: batch_size is 0; it has to be 1 or more"),
        ({"batch_size": 2.7}, "made.yaml: batch_size is 2.7; it has to be a whole number."),
        ({"steps": True}, "made.yaml: steps is True; it has to be a whole number."),
        ({"max_length": "320 tokens"}, "made.yaml: max_length is '320 tokens'; it has to be a whole number."),
        ({"template": ["chatml"]}, r"made.yaml: template is \['chatml'\]; it has to be text."),
        ({"adapter": "LORA"}, "made.yaml: adapter is 'LORA'; it has to be fields with their values."),
        ({"adapter": {**ADAPTER, "lora_alfa": 8}}, "adapter: PEFT .* unexpected keyword argument 'lora_alfa'"),
        ({"adapter": {**ADAPTER, "peft_type": "LORAA"}}, "adapter: PEFT knows no peft_type 'LORAA'"),
        ({"adapter": {**ADAPTER, "peft_type": ["LORA"]}}, r"adapter: PEFT knows no peft_type \['LORA'\]"),
        ({"adapter": {**ADAPTER, "task_type": "SEQ_CLS"}}, "adapter: task_type is 'SEQ_CLS'; .* 'CAUSAL_LM'"),
        ({"adapter": {**ADAPTER, "inference_mode": True}}, "adapter: with inference_mode nothing is trained"),
        (
            {"adapter": {**ADAPTER, "init_lora_weights": "pissa_niter_4"}},
            "adapter: init_lora_weights 'pissa_niter_4' also changes",
        ),
        ({"compute_dtype": "float16"}, "Unknown compute_dtype 'float16'; choose from"),
        ({"adapter": None, "trainable": "("}, r"trainable '\(' is no pattern"),
        ({"revision": "v9"}, "revision is 'v9', and the model is a folder, which has none"),
        ({"lr": 1e30, "adapter": None, "max_grad_norm": 0}, "The loss at step 2 is nan"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_said_in_a_line(base, tmp_path, changes, words):
    with pytest.raises(SystemExit, match=words):
        main([str(written(tmp_path, base, **changes))])
    assert not (tmp_path / "made" / "recipe.yaml").exists()


def test_a_wrong_adapter_is_refused_before_a_model_is_loaded(base, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit, match="adapter: PEFT .*lora_alfa"):
        main([str(written(tmp_path, base, adapter={**ADAPTER, "lora_alfa": 8}))])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: [", "made.yaml is no YAML"),
        ("steps: 1\nlr: 0.1\nmodel: caf\u00e9\n".encode("latin1"), "made.yaml is not UTF-8"),
        ("", "made.yaml has no fields"),
        ("lr: 1e-3", "made.yaml: it missing 1 required keyword-only argument: 'steps'"),
    ],
)
def test_what_is_no_recipe_is_named(tmp_path, text, words):
    path = tmp_path / "made.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words):
        training.read_recipe(path)


def test_an_adapter_names_the_revision_of_its_base():
    recipe = Recipe(model="some/model", revision="v2", adapter=ADAPTER, lr=0.1, steps=1)
    assert training.prepare.adapter_config(recipe).revision == "v2"


def test_a_recipe_is_read_as_it_is_written(tmp_path):
    recipe = Recipe(adapter=LORA, data="own.jsonl", lr=1e-5, steps=10, seed=3)
    path = tmp_path / "made.yaml"
    path.write_text(yaml.safe_dump(asdict(recipe)), encoding="utf-8")
    assert training.read_recipe(path) == recipe
    path.write_text("lr: 1\nsteps: 1\nadapter: {peft_type: LORA, lora_dropout: 1e-1, r: '4'}\n", encoding="utf-8")
    assert training.read_recipe(path).adapter == {"peft_type": "LORA", "lora_dropout": 0.1, "r": 4}
    path.write_text("lr: 1e-5\nsteps: 10\nseed: 3\ndata: own.jsonl\nmax_length: 1e3\n", encoding="utf-8")
    assert training.read_recipe(path).lr == 1e-5, "which YAML reads as text"
    assert training.read_recipe(path).max_length == 1000


def test_the_shipped_recipe_is_guanaco_s_scaled(tokenizer):
    recipe = training.read_recipe(ROOT / "recipes" / "guanaco.yaml")
    assert (recipe.precision, recipe.schedule, recipe.max_grad_norm) == ("nf4-dq", "constant", 0.3)
    threads = chat.load_threads(ROOT / "data" / "conversations.jsonl", "train")
    examples = chat.encode_all(threads, tokenizer, recipe.template, max_length=recipe.max_length)
    assert len(examples) == len(threads), "no thread is left out for its length"
    assert training.check(examples, tokenizer, recipe.template, args=recipe) == []


@pytest.mark.parametrize(
    ("name", "kind", "processes"), [("one_gpu", "NO", 1), ("ddp", "MULTI_GPU", 2), ("fsdp2_qlora", "FSDP", 2)]
)
def test_accelerate_reads_the_shipped_settings(name, kind, processes):
    """By its own reader, which refuses a key that it does not know."""
    found = load_config_from_file(str(ROOT / "recipes" / "accelerate" / f"{name}.yaml"))
    assert (str(found.distributed_type).removeprefix("DistributedType."), found.num_processes) == (kind, processes)
    assert not found.use_cpu
    if kind == "FSDP":
        assert found.fsdp_config["fsdp_version"] == 2
        assert found.fsdp_config["fsdp_reshard_after_forward"] is True


@pytest.mark.parametrize(("fsdp", "storage"), [("true", torch.bfloat16), (None, torch.uint8)])
def test_4_bit_weights_that_are_spread_lie_in_the_format_that_is_computed_in(monkeypatch, fsdp, storage):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    if fsdp:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", fsdp)
    assert quantization_config("nf4-dq", torch.bfloat16).bnb_4bit_quant_storage == storage
