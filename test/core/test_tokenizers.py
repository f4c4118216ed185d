# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: what they depend on, and their inference form."""

import pytest

torch = pytest.importorskip("torch")

from test_export import shake  # noqa: E402
from test_models import TINY, card, clouds, tiny_student  # noqa: E402

from foundry_core.architecture import Architecture, ShallowTokenizerConfig, TokenizerConfig  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.export.graph import example_inputs, perceive  # noqa: E402
from foundry_core.export.rewrite import for_inference  # noqa: E402
from foundry_core.export.rewrite_transformer import fused_tokenizer  # noqa: E402
from foundry_core.models.registry import create_perception  # noqa: E402
from foundry_core.models.tokenizer import make_tokenizer  # noqa: E402
from foundry_core.schema import parse  # noqa: E402

POINTNET = TokenizerConfig(first=8, second=16, third=16)
SHALLOW = ShallowTokenizerConfig(kind="shallow", directions=8, hidden=16)
ALL = [
    *(
        POINTNET.model_copy(update={"pool": pool, "stride": stride})
        for pool in ("after", "before")
        for stride in (1, 2)
    ),
    SHALLOW,
]


def tokenizer(config):
    torch.manual_seed(0)
    made = make_tokenizer(config, 24).eval()
    shake(made)
    return made


@pytest.mark.parametrize("config", [POINTNET, SHALLOW], ids=lambda config: config.kind)
def test_a_token_depends_on_the_points_of_its_patch_and_not_on_their_order(config):
    made, (_, neighborhoods) = tokenizer(config), clouds()
    tokens = made(neighborhoods)
    assert tokens.shape == (3, 16, 24)
    assert torch.allclose(made(neighborhoods[:, :, torch.randperm(8)]), tokens, atol=1e-6)
    changed = neighborhoods.clone()
    changed[1, 5, 7] += 0.3
    same = torch.isclose(made(changed), tokens, atol=1e-6).all(dim=-1)
    assert (~same).nonzero().tolist() == [[1, 5]]


@pytest.mark.parametrize("pool", ["after", "before"])
def test_a_strided_tokenizer_reads_every_second_neighbour(pool):
    made, (_, neighborhoods) = tokenizer(POINTNET.model_copy(update={"stride": 2, "pool": pool})), clouds()
    changed = neighborhoods.clone()
    changed[:, :, 1::2] += 1.0
    assert torch.equal(made(neighborhoods), made(changed))
    changed[:, :, 2] += 1.0
    assert not torch.equal(made(neighborhoods), made(changed))


def test_a_shallow_tokenizer_knows_a_patch_s_size_by_its_logarithm_alone():
    made, (_, neighborhoods) = tokenizer(SHALLOW), clouds()
    with torch.no_grad():
        made.first.weight[:, -1] = 0.0  # deaf to the size
        assert torch.allclose(made(5 * neighborhoods), made(neighborhoods), atol=1e-5)
        made.first.weight[:, -1] = 1.0
        assert not torch.allclose(made(5 * neighborhoods), made(neighborhoods), atol=1e-2)


@pytest.mark.parametrize("config", [POINTNET, SHALLOW], ids=lambda config: config.kind)
def test_a_patch_of_one_point_has_a_token(config):
    assert torch.isfinite(tokenizer(config)(torch.zeros(1, 2, 8, 3))).all()


@pytest.mark.parametrize("config", ALL, ids=lambda config: "-".join(map(str, config.model_dump().values())))
def test_the_inference_form_is_exact(config):
    made, (_, neighborhoods) = tokenizer(config), clouds()
    with torch.no_grad():
        expected = made(neighborhoods)
        assert torch.allclose(fused_tokenizer(made)(neighborhoods).view_as(expected), expected, atol=1e-5)


def test_a_student_with_a_shallow_tokenizer_has_its_inference_form_and_its_products_counted():
    from torch.utils.flop_counter import FlopCounterMode

    from foundry_core.runtime.macs import macs

    architecture = tiny_student().model_copy(update={"tokenizer": SHALLOW})
    model_card = card(architecture)
    network = create_perception(model_card).eval()
    shake(network)
    fused = for_inference(network)
    inputs = [torch.from_numpy(value) for value in example_inputs(model_card, 1).values()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        found = perceive(fused, inputs, 3)
    assert counter.get_total_flops() == 2 * macs(model_card, 3, ("class_logits", "part_logits"))
    with torch.no_grad():
        expected = perceive(network, inputs, 3)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-5 * max(1.0, float(value.abs().max())), name


def test_cards_and_configurations_without_a_kind_mean_the_mini_pointnet():
    written = TINY.model_dump(mode="json")
    del written["tokenizer"]["kind"]
    assert parse(Architecture, written, "card") == TINY
    shallow = {**written, "tokenizer": {"kind": "shallow", "hidden": 32}}
    assert parse(Architecture, shallow, "card").tokenizer.directions == 64


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        ({"kind": "deep"}, "tokenizer.*'pointnet', 'shallow'"),
        ({"kind": "shallow", "first": 8}, "tokenizer.*first: unknown key"),
        ({"directions": 8}, "tokenizer.*directions: unknown key"),
    ],
)
def test_keys_of_another_kind_are_refused(tokenizer, words):
    with pytest.raises(InputError, match=words):
        parse(Architecture, {"tokenizer": tokenizer}, "x.yaml")
