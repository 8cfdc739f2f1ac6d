"""How far predictions moved: against torch's own divergence, position by position, and against the loss."""

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from course_utils import evaluation
from tests.conftest import made_examples, tiny


def moved() -> tuple[torch.nn.Module, evaluation.Predictions, torch.nn.Module]:
    """A model before a change, its predictions, and the same model after it."""
    model, old = tiny(), tiny()
    old.load_state_dict(model.state_dict())
    before = evaluation.predictions(model, made_examples(19))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return old, before, model


def test_drift_equals_torchs_divergence_and_loss_example_by_example():
    old, before, model = moved()
    found = evaluation.drift(model, before)
    assert len(found) == 19
    for example, row in zip(made_examples(19), found.itertuples(), strict=True):
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor(example["labels"])[1:]
        with torch.no_grad():
            p, q = (m.eval()(ids).logits[0, :-1][labels != -100] for m in (old, model))
        assert row.tokens == (labels != -100).sum()
        assert row.nats == pytest.approx(cross_entropy(q, labels[labels != -100], reduction="sum").item(), rel=1e-4)
        expected = kl_div(q.log_softmax(1), p.log_softmax(1), log_target=True, reduction="sum").item()
        assert row.kl == pytest.approx(expected, rel=1e-3)
        assert row.same == (p.argmax(1) == q.argmax(1)).sum()
    assert 0 < found.same.sum() < found.tokens.sum(), "or the comparison would be empty"


def test_an_unchanged_model_has_not_moved():
    model = tiny()
    found = evaluation.drift(model, evaluation.predictions(model, made_examples()))
    assert found.kl.abs().max() < 1e-5
    assert found.same.tolist() == found.tokens.tolist()
    own = evaluation.nll(model, made_examples())
    assert (found.nats.sum(), found.tokens.sum()) == (pytest.approx(own.nats), own.tokens)
    with pytest.raises(ValueError, match="empty"):
        evaluation.predictions(model, [])
