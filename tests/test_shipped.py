"""`training.check_shipped`: what was not saved, and what was merged into other weights, is found; all else is not."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_config, get_peft_model
from torch import nn

from course_utils import training
from course_utils.training.traps import WAYS_OUT
from tests.conftest import made_examples, tiny

EXAMPLES = made_examples(4)
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}


def base() -> nn.Module:
    """With a head that makes its predictions differ by more than a margin."""
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    return model


def rounded(model: nn.Module) -> nn.Module:
    """The weights under the adapter on a grid of three levels: what few bits do, made visible in a tiny model."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(target in name for target in CONFIG["target_modules"]):
                step = weight.abs().max() / 2
                weight.copy_((weight / step).round().clamp(-1, 1) * step)
    return model


def adapted(base: nn.Module, size: float = 0.3) -> PeftModel:
    """With an adapter that changes the predictions, as training makes one."""
    model = get_peft_model(base, get_peft_config(dict(CONFIG)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=size, generator=torch.Generator().manual_seed(1))
    return model


def names(found: list[training.Finding]) -> list[str]:
    return [finding.name for finding in found]


@pytest.fixture
def saved(tmp_path):
    model = adapted(base())
    model.save_pretrained(tmp_path / "made")
    return model, tmp_path / "made"


def test_what_was_saved_and_merged_right_has_no_trap(saved):
    """Merged by PEFT itself, from the file, on a base that was loaded again."""
    model, folder = saved
    merged = PeftModel.from_pretrained(base(), folder).merge_and_unload()
    assert training.check_shipped(model, folder) == []
    assert training.check_shipped(model, folder, merged=merged, examples=EXAMPLES) == []
    assert training.check_shipped(model, folder, merged=merged.bfloat16(), examples=EXAMPLES) == []


def test_an_adapter_that_is_not_there_was_not_saved(saved, tmp_path):
    (found,) = training.check_shipped(saved[0], tmp_path)
    assert str(found).startswith("adapter_not_saved, ")
    assert "has no adapter_model.safetensors" in str(found)


def test_an_adapter_that_was_saved_before_training_is_not_what_was_trained(saved):
    model, folder = saved
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).add_(1e-3)
    (found,) = training.check_shipped(model, folder)
    assert (found.name, found.where) == ("adapter_not_saved", "made, 1 of 12 weights")


def test_a_file_that_was_cut_off_is_no_adapter(saved):
    model, folder = saved
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    (found,) = training.check_shipped(model, folder)
    assert found.name == "adapter_not_saved"
    assert "was not written to its end" in found.where


def test_a_merge_into_other_weights_is_found(tmp_path):
    """Trained on rounded weights: there it can be merged, and into those before the rounding it cannot."""
    model = adapted(rounded(base()), size=0.02)
    model.save_pretrained(tmp_path / "made")
    found = {
        name: training.check_shipped(
            model,
            tmp_path / "made",
            merged=PeftModel.from_pretrained(under, tmp_path / "made").merge_and_unload(),
            examples=EXAMPLES,
        )
        for name, under in (("rounded", rounded(base())), ("as it was", base()))
    }
    assert names(found["rounded"]) == []
    assert names(found["as it was"]) == ["wrong_base"]
    assert WAYS_OUT["wrong_base"] in str(found["as it was"][0])


def test_an_update_that_is_rounded_away_is_found(tmp_path):
    """Merged, and then put on the grid again, as a merge into 4-bit weights does."""
    model = adapted(rounded(base()), size=0.02)
    model.save_pretrained(tmp_path / "made")
    merged = PeftModel.from_pretrained(rounded(base()), tmp_path / "made").merge_and_unload()
    found = training.check_shipped(model, tmp_path / "made", merged=rounded(merged), examples=EXAMPLES)
    assert names(found) == ["wrong_base"]


def test_both_models_are_left_in_their_modes(saved):
    model, folder = saved
    merged = copy.deepcopy(model).merge_and_unload().eval()
    model.train()
    training.check_shipped(model, folder, merged=merged, examples=EXAMPLES)
    assert model.training
    assert all(part.training for part in model.modules())
    assert not any(part.training for part in merged.modules())


def test_a_merged_model_is_compared_on_examples(saved):
    model, folder = saved
    with pytest.raises(ValueError, match="The list of examples is empty"):
        training.check_shipped(model, folder, merged=model)
