# SPDX-License-Identifier: Apache-2.0
"""The cost model against what torch counts."""

import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.config import PretrainConfig  # noqa: E402
from foundry_core.training.cost import flops_per_sample, hours  # noqa: E402
from foundry_core.training.pretrain import Pretraining  # noqa: E402

OBJECTIVES = {
    "mae": {"mask_ratio": 0.7},
    "point2vec": {"decoder_depth": 2, "target_blocks": 2},
    "jepa": {"predictor_depth": 2, "context_ratio": [0.5, 0.5], "target_ratio": [0.2, 0.2]},
}


@pytest.mark.parametrize("contrast", [None, {"width": 32}])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_cost_of_a_sample_is_what_torch_counts(kind, contrast):
    values = {
        "name": "tiny",
        "architecture": {"tokenizer": {"first": 16, "second": 32, "third": 64}, "encoder": {"width": 48, "depth": 3}},
        "preprocessing": {"points": 256, "groups": 32, "neighbors": 16},
        "objective": {"kind": kind, **OBJECTIVES[kind]},
        "contrast": contrast,
    }
    config = parse(PretrainConfig, values, "test")
    module = Pretraining(config).module
    generator = torch.Generator().manual_seed(0)
    counted, batch, times = 0, 4, 12 if kind == "jepa" else 1  # the blocks of a jepa overlap by chance
    shape = (batch, 2, 32) if contrast else (batch, 32)
    for _ in range(times):
        with FlopCounterMode(display=False) as counter:
            clouds = torch.randn(*shape, 3, generator=generator), torch.randn(*shape, 16, 3, generator=generator)
            module(*clouds)["loss"].backward()
        counted += counter.get_total_flops() / (batch * times)
    # the count leaves out the gradients of inputs that have none, in the first layers
    assert flops_per_sample(config) == pytest.approx(counted, rel=0.06)


def test_hours_of_shapenet55():
    assert hours(52_470, 300, 1000.0) == pytest.approx(4.3725)
