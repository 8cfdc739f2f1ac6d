"""What only a GPU can show: `pytest -m gpu`. Every test here is skipped where there is none of its kind.

The rest of the tests keep models on the CPU (`COURSE_PROFILE=cpu`), also on a machine with a GPU.
"""

import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import batches, chat, datafiles, evaluation, loading, machine, memory, training
from course_utils.chat import Example
from course_utils.core import files
from course_utils.course.execute import execute
from course_utils.training import LORA, Recipe
from course_utils.training.sft import SupervisedSFTTrainer

pytestmark = pytest.mark.gpu
RECIPE = Recipe(precision="nf4-dq", adapter=LORA, lr=1e-3, steps=5)
FP16, BF16 = {"fp16": True, "bf16": False}, {"fp16": False, "bf16": True}


@pytest.fixture(scope="module")
def threads(tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Short conversations to train on."""
    trees = datafiles.load_conversations(split="train")
    return chat.encode_all(map(chat.top_thread, trees), tokenizer, max_length=96)


def qlora(
    tokenizer: PreTrainedTokenizerBase,
    threads: list[Example],
    folder: Path,
    device: str,
    recipe: Recipe = RECIPE,
    **options: object,
) -> SupervisedSFTTrainer:
    """A trainer of adapters on the model in 4 bits, in the hardware's own 16-bit format unless told otherwise."""
    dtype = torch.float16 if options.get("fp16") else machine.fast_dtype(device)
    model = loading.load_model(precision=recipe.precision, compute_dtype=dtype, device=device)
    return training.sft_trainer(model, tokenizer, threads, folder, recipe, **options)


def packed_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.dtype == torch.uint8]


def test_qlora_holds_together(gpu, tokenizer, threads, tmp_path):
    """Loading, adapters, autocast, the gradient scaler, clipping and the fused optimizer."""
    trainer = qlora(tokenizer, threads[:8], tmp_path, gpu)  # every step sees the same batch, so the loss must fall
    before = packed_weights(trainer.model)
    losses = training.run(trainer).losses
    assert trainer.args.n_gpu == 1
    assert torch.tensor(losses).isfinite().all()
    assert losses[-1] < losses[0]
    adapters = [p for p in trainer.model.parameters() if p.requires_grad]
    assert {(p.device.type, p.dtype) for p in adapters} == {(gpu, torch.float32)}
    assert all(p.isfinite().all() for p in adapters)
    assert len(before) == 210
    assert all(torch.equal(old, new) for old, new in zip(before, packed_weights(trainer.model), strict=True))


def test_an_adapter_that_is_loaded_again_is_the_same_bit_for_bit(gpu, tokenizer, threads, tmp_path):
    trainer = qlora(tokenizer, threads, tmp_path, gpu, replace(RECIPE, steps=3))
    training.run(trainer)
    tuned, ids = trainer.model.eval(), batches.collate(threads[:2])["input_ids"].to(gpu)
    tuned.save_pretrained(tmp_path / "adapter")
    base = loading.load_model(precision="nf4-dq", compute_dtype=machine.fast_dtype(gpu), device=gpu)
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        first, repeated, reloaded = tuned(ids).logits, tuned(ids).logits, again(ids).logits
    assert torch.equal(first, repeated), "the GPU's own arithmetic repeats itself"
    assert first.dtype == reloaded.dtype
    assert torch.equal(first, reloaded)


def test_fp16_has_room_for_the_residual_stream(gpu, tokenizer, threads, tmp_path):
    """It reaches about 26,000 before training; float16 ends at 65,504."""
    trainer = qlora(tokenizer, threads, tmp_path, gpu, replace(RECIPE, steps=60), **FP16)
    largest = []
    layers = trainer.model.get_base_model().model.layers
    for layer in layers:
        layer.register_forward_hook(lambda *call: largest.append(call[-1].detach().abs().max()))
    training.run(trainer)
    assert len(largest) >= 60 * len(layers)
    assert torch.stack(largest).max() < 50_000
    assert trainer.accelerator.scaler.get_scale() >= 65536 / 4


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_first_step_is_that_of_the_cpu(gpu, examples, precision):
    if precision == "bf16" and not machine.has_native_bf16(gpu):
        pytest.skip("this GPU has no native bfloat16")

    def first_step(device: str, precision: str) -> tuple[float, torch.Tensor]:
        torch.manual_seed(0)
        config = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(loading.load_model(precision=precision, device="cpu"), config).to(device)
        loss = batches.supervised_loss(model, batches.collate(examples))
        (loss * 1024).backward()  # keeps float16's gradients from vanishing
        gradients = [p.grad.flatten().float().cpu() for p in model.parameters() if p.requires_grad]
        return loss.item(), torch.cat(gradients)

    (exact_loss, exact), (loss, found) = first_step("cpu", "fp32"), first_step(gpu, precision)
    assert loss == pytest.approx(exact_loss, rel=0.01)
    assert torch.cosine_similarity(exact, found, dim=0) > 0.99


def test_nll_does_not_depend_on_the_device(gpu, threads):
    found = {}
    for device in ("cpu", gpu):
        model = loading.load_model(precision="nf4-dq", compute_dtype=torch.float32, device=device)
        found[device] = evaluation.nll(model, threads[:16]).mean
    assert found[gpu] == pytest.approx(found["cpu"], rel=1e-3)


def test_generation_in_a_batch_equals_one_at_a_time(gpu, tokenizer):
    model = loading.load_model(precision="fp32", device=gpu)
    questions = [chat.question("Hi"), chat.question("What is the capital of France, and of Italy?")]
    options = {"template": "chatml", "max_new_tokens": 12}
    together = evaluation.generate(model, tokenizer, questions, **options)
    assert together == [evaluation.generate(model, tokenizer, [one], **options)[0] for one in questions]


def test_bytes_are_those_that_torch_allocates(gpu):
    before = torch.cuda.memory_allocated()
    with memory.measure() as peak:
        big = torch.ones(25_000_000, device=gpu)
        del big
    assert peak.added == pytest.approx(100e6, rel=0.01)
    model = loading.load_model(precision="nf4-dq", device=gpu)
    assert memory.ledger(model)["total"] == pytest.approx(torch.cuda.memory_allocated() - before, rel=0.05)


def test_a_second_gpu_stays_empty_in_one_process(gpu, tokenizer, threads, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two GPUs")
    trainer = qlora(tokenizer, threads[:8], tmp_path, gpu)
    losses = training.run(trainer).losses
    assert trainer.args.n_gpu == 1
    assert losses[-1] < losses[0]
    assert torch.cuda.memory_allocated(1) == 0


def test_an_apple_gpu_measures_generates_and_trains_like_the_cpu(monkeypatch, tokenizer, threads, tmp_path):
    if not torch.backends.mps.is_available():
        pytest.skip("no Apple GPU")
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    questions = [chat.question("Hi"), chat.question("What is the capital of France, and of Italy?")]
    nll, answers = {}, {}
    for device in ("cpu", "mps"):
        model = loading.load_model(precision="nf4-dq", compute_dtype=torch.float32, device=device)
        nll[device] = evaluation.nll(model, threads[:16]).mean
        answers[device] = evaluation.generate(model, tokenizer, questions, template="chatml", max_new_tokens=12)
    assert nll["mps"] == pytest.approx(nll["cpu"], rel=1e-3)
    assert answers["mps"] == answers["cpu"]
    losses = training.run(qlora(tokenizer, threads, tmp_path, "mps", replace(RECIPE, steps=3))).losses
    assert torch.tensor(losses).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["02_peft", "03_qlora", "04_guanaco_sft"])
def test_notebooks_run_and_keep_their_promises(gpu, name):
    """Their numbers differ from those stored on a CPU; that nothing fails, and what is printed as True, may not.

    Notebook 01 keeps its models on the CPU everywhere.
    """
    path = files.notebook(name)
    found, _ = execute(path)
    stored = nbformat.read(path, as_version=4)
    assert answers(found) == answers(stored)


def answers(notebook: nbformat.NotebookNode) -> list[tuple[int, str]]:
    """Every True and False that a cell prints, with the number of the cell."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = [(n, o.text) for n, cell in enumerate(cells) for o in cell.outputs if o.get("name") == "stdout"]
    return [(number, word) for number, text in printed for word in re.findall(r"\b(True|False)\b", text)]
