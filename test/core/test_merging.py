# SPDX-License-Identifier: Apache-2.0
"""Token merging without training, and the bounds of compression."""

import pytest

torch = pytest.importorskip("torch")

from test_models import TINY, clouds  # noqa: E402

from foundry_core.models.bounds import Compressed  # noqa: E402
from foundry_core.models.merging import (  # noqa: E402
    MATCHING,
    Merged,
    energy,
    kmeans,
    match_pitome,
    match_tome,
    merge,
    merge_tokens,
    schedule,
)
from foundry_core.models.teacher import Teacher  # noqa: E402
from foundry_core.training.distill import r_squared  # noqa: E402

METHODS = ("tome", "pitome", "kmeans", "fps")


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return Teacher(TINY).eval()


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_merging_to_all_tokens_is_the_teacher(method, teacher):
    out = Merged(teacher, method, 16)(*clouds())
    assert torch.allclose(out["tokens"], teacher(*clouds())["tokens"], atol=1e-5)
    assert torch.equal(out["assignment"], torch.eye(16).repeat(3, 1, 1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 5, 9])
@torch.no_grad()
def test_every_token_has_one_owner_and_sizes_sum_to_all_tokens(method, count, teacher):
    out = Merged(teacher, method, count)(*clouds())
    assignment, sizes = out["assignment"], out["sizes"]
    assert out["supertokens"].shape == (3, count, 24) and assignment.shape == (3, 16, count)
    assert torch.equal(assignment.sum(dim=2), torch.ones(3, 16)) and set(assignment.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(assignment.sum(dim=1), sizes) and (sizes >= 1).all()
    assert torch.equal(sizes.sum(dim=1), torch.full((3,), 16.0))
    own = torch.stack([s[a.argmax(dim=1)] for s, a in zip(out["supertokens"], assignment)])
    assert torch.allclose(out["tokens"], own, atol=1e-6)


@pytest.mark.parametrize("method", MATCHING)
@torch.no_grad()
def test_matching_makes_its_tensors_where_the_tokens_are(method, teacher):
    tokens = torch.empty(3, 16, 24, device="meta")
    assert merge_tokens(tokens, 4).device.type == "meta"
    out = Merged(teacher.to("meta"), method, 4)(*(cloud.to("meta") for cloud in clouds()))
    assert {name: value.device.type for name, value in out.items()} == dict.fromkeys(out, "meta")


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_equal_patches_merge_without_loss(method, teacher):
    """Proportional attention makes a merged token count as often as its equals did: only then is this exact."""
    centers, neighborhoods = clouds()
    centers = centers[:, :4].repeat(1, 4, 1)
    neighborhoods = neighborhoods[:, :4].repeat(1, 4, 1, 1)
    whole = teacher(centers, neighborhoods)["tokens"]
    merged = Merged(teacher, method, 4)(centers, neighborhoods)["tokens"]
    if method in ("tome", "pitome"):  # partners are sought in one half of the tokens only
        assert r_squared(merged, whole) > 0.5
    else:
        assert torch.allclose(merged, whole, atol=1e-4)


def test_the_schedule_declines_evenly_and_never_faster_than_halving_if_it_can():
    assert schedule(64, 16, 6) == [56, 48, 40, 32, 24, 16]
    assert schedule(64, 1, 6) == [32, 16, 8, 4, 2, 1]
    assert schedule(64, 64, 6) == [64] * 6
    for count in (1, 2, 3, 4, 7, 16, 40):
        left = [64, *schedule(64, count, 6)]
        assert left[-1] == count and all(a >= b >= a / 2 for a, b in zip(left, left[1:]))
    assert schedule(64, 1, 2)[-1] == 1  # the first block then merges more than once


def test_bipartite_matching_merges_the_most_similar_pairs():
    torch.manual_seed(1)
    keys = torch.randn(2, 9, 5)
    owner = match_tome(keys, 3, 0.0)
    assert owner.shape == (2, 9, 6)
    for cloud in range(2):
        unit = torch.nn.functional.normalize(keys[cloud], dim=-1)
        edges = sorted(
            (max((float(unit[i] @ unit[j]), j) for j in range(0, 9, 2)) + (i,) for i in range(1, 9, 2)), reverse=True
        )
        for _, even, odd in edges[:3]:
            assert torch.equal(owner[cloud, odd], owner[cloud, even])
        assert owner[cloud].sum(dim=0).max() >= 2 and (owner[cloud].sum(dim=0) > 1).sum() <= 3
        assert len(owner[cloud].argmax(dim=1).unique()) == 6


def test_pitome_protects_tokens_that_are_alone():
    crowd = torch.tensor([1.0, 0.0, 0.0]) + 0.01 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    alone = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    keys = torch.cat([alone, crowd])[None]  # (1, 8, 3)
    assert energy(keys, 0.9)[0, :2].max() < energy(keys, 0.9)[0, 2:].min()
    x = torch.nn.functional.normalize(keys[0], dim=-1)
    expected = sum(c if c >= 0.9 else torch.exp(c - 0.9) - 1 for c in x[0] @ x.T) / 8
    assert energy(keys, 0.9)[0, 0] == pytest.approx(float(expected), abs=1e-6)
    sizes = match_pitome(keys, 3, 0.0)[0].sum(dim=0)
    owner = match_pitome(keys, 3, 0.0)[0].argmax(dim=1)
    assert sizes[owner[0]] == sizes[owner[1]] == 1 and len(owner.unique()) == 5


def test_means_are_weighted_by_size():
    values, size = torch.tensor([[[1.0], [4.0], [7.0]]]), torch.tensor([[1.0, 2.0, 3.0]])
    owner = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    merged, sizes = merge(values, size, owner)
    assert merged[0, :, 0].tolist() == [3.0, 7.0] and sizes[0].tolist() == [3.0, 3.0]


def test_kmeans_finds_clusters_that_are_there_and_leaves_none_empty():
    torch.manual_seed(0)
    truth = torch.arange(20) % 4
    values = (10 * torch.eye(4))[truth][None] + 0.1 * torch.randn(1, 20, 4)
    owner = kmeans(values, values[:, :4])[0].argmax(dim=1)
    assert torch.equal(owner, truth)
    same = torch.ones(1, 6, 2)
    assert (kmeans(same, same[:, :3]).sum(dim=1) >= 1).all()


@torch.no_grad()
def test_bounds_grow_to_one_and_no_hard_assignment_beats_free_weights(teacher):
    centers, neighborhoods = clouds(4)
    target = teacher(centers, neighborhoods)["tokens"]

    def bound(method, size):
        network = Compressed(teacher, method, size)
        network.fit([(centers[:2], neighborhoods[:2], None), (centers[2:], neighborhoods[2:], None)])
        return float(r_squared(network(centers, neighborhoods)["tokens"], target))

    for method, whole in (("pca", 24), ("rank", 16), ("cluster", 16)):
        values = [bound(method, size) for size in (1, 2, 4, 8)]
        assert values == sorted(values) and bound(method, whole) == pytest.approx(1, abs=1e-4)
    for size in (2, 4, 8):
        assert (
            bound("rank", size)
            >= bound("cluster", size)
            >= r_squared(Merged(teacher, "fps", size)(centers, neighborhoods)["tokens"], target)
        )
    flat = target.flatten(0, 1)
    values = torch.linalg.svdvals(flat - flat.mean(dim=0)).square()
    assert bound("pca", 3) == pytest.approx(float(values[:3].sum() / values.sum()), abs=1e-4)


def test_every_matching_keeps_exactly_the_count_that_is_asked_for():
    keys = torch.randn(2, 13, 4)
    for match in MATCHING.values():
        for merged in range(1, 7):
            owner = match(keys, merged, 0.5)
            assert owner.shape == (2, 13, 13 - merged) and (owner.sum(dim=1) >= 1).all()
