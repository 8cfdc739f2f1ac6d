"""Two processes train like one, share the bytes of the weights, and differ as little as the record says."""

import pandas as pd
import pytest

from course_utils import datafiles
from tests import two_processes
from tests.two_processes import LIMITS, measured

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["random", "group_by_length"])
def trained(request, tmp_path_factory):
    return two_processes.trained(tmp_path_factory.mktemp("trained"), request.param)


@pytest.fixture(scope="module")
def spread(tmp_path_factory):
    return two_processes.spread(tmp_path_factory.mktemp("spread"))


def test_two_processes_train_like_one(trained):
    """A missing factor would halve both the gradients and the logged loss, and AdamW would hide it."""
    assert trained["processes"] == 2
    assert {name: value for name, value in trained.items() if value > LIMITS[name]} == {}


@pytest.mark.parametrize("precision", ["bf16", "nf4-dq"])
def test_spread_weights_take_half_the_bytes(spread, precision):
    """PyTorch's fully_shard, which FSDP2 is: half the bytes in each of two processes, 4-bit ones too, the same loss."""
    found = spread[precision]
    whole, own = found["bytes"]
    assert found["processes"] == 2
    assert own == pytest.approx(whole / 2, rel=0.05)
    assert found["losses"][1] == pytest.approx(found["losses"][0], rel=1e-3)
    assert found["gradients"]


def test_the_record_is_what_the_runs_give(trained, spread):
    """Counts as they are; what rounding decides differs from machine to machine, and stays below its limit."""
    record, now = (
        frame.set_index("quantity") for frame in (datafiles.load_figures("two_processes"), measured(trained, spread))
    )
    pd.testing.assert_frame_equal(record[["at_most", "source"]], now[["at_most", "source"]])
    assert (record["measured"] <= record["at_most"]).all()
    counted = ["processes", "bytes in each, bf16", "bytes in each, nf4-dq"]
    assert record.loc[counted, "measured"].tolist() == pytest.approx(now.loc[counted, "measured"].tolist(), rel=5e-3)
