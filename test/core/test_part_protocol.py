# SPDX-License-Identifier: Apache-2.0
"""The part protocol: what is asked, what the head reads, and that it learns what can be learned."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from test_models import TINY, card, tiny_student  # noqa: E402

from foundry_core import geometry  # noqa: E402
from foundry_core.architecture import Preprocessing  # noqa: E402
from foundry_core.data.procedural import CATEGORIES, CATEGORY_PARTS, PART_NAMES  # noqa: E402
from foundry_core.data.procedural_set import procedural_shapes  # noqa: E402
from foundry_core.data.shapes import ShapeSet  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.evaluation.features import Source  # noqa: E402
from foundry_core.evaluation.part_features import PartInputs, local_geometry, token_levels, vote_view  # noqa: E402
from foundry_core.evaluation.part_head import PartProbeConfig, fit_part_probe, part_probabilities  # noqa: E402
from foundry_core.evaluation.part_task import PartClouds, PartTask  # noqa: E402
from foundry_core.evaluation.parts import PartSettings, parts  # noqa: E402
from foundry_core.evaluation.subjects import Subject  # noqa: E402
from foundry_core.models.registry import create_perception, save_model  # noqa: E402


def dumbbells(count: int, seed: int, flip: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Two balls and a rod along z, [count,160,3], and whether a point is rod (1) or ball (0, below, and 2, above)."""
    rng = np.random.default_rng(seed)
    clouds, truth = [], []
    for _ in range(count):
        ball = rng.normal(size=(96, 3))
        ball *= 0.4 / np.linalg.norm(ball, axis=1, keepdims=True)
        ball[:48, 2] -= 1
        ball[48:, 2] += 1
        rod = np.stack([*rng.uniform(-0.05, 0.05, (2, 64)), rng.uniform(-0.6, 0.6, 64)], axis=1)
        order = rng.permutation(160)
        clouds.append(np.concatenate([ball, rod])[order] * rng.uniform(0.8, 1.2))
        truth.append(np.repeat([2, 0, 1] if flip else [0, 2, 1], [48, 48, 64])[order])
    return np.array(clouds, np.float32), np.array(truth)


def two_categories(train: int = 12, test: int = 6) -> ShapeSet:
    """The same shapes in both categories, but in the second the balls have each other's names."""
    points, truth = zip(*(dumbbells(train + test, seed, flip=seed == 1) for seed in (0, 1)))
    split = np.tile(np.repeat([0, 1], [train, test]), 2)
    return ShapeSet(
        "bells", np.concatenate(points), np.repeat([0, 1], train + test), ("up", "down"), np.concatenate(truth),
        ("low", "rod", "high"), split,
    )  # fmt: skip


def test_categories_and_their_parts_are_read_off_the_train_shapes():
    shapes = two_categories()
    part = shapes.part_label.copy()
    part[shapes.label == 1] = 1  # the second category has one part only
    part[0, :3] = -1
    rare = shapes.split == 0
    part[np.flatnonzero(rare & (shapes.label == 0))[0], 5] = 3  # one shape of twelve: below a tenth
    names = ("low", "rod", "high", "dent")
    task = PartTask.of(ShapeSet("bells", shapes.points, shapes.label, ("up", "down"), part, names, shapes.split))
    assert task.categories == ("up",) and task.allowed.tolist() == [[True, True, True, False]]
    assert (len(task.train), len(task.test)) == (12, 6)
    assert task.train.part[0, :3].tolist() == [-1] * 3 and task.train.part[0, 5] == -1
    test = part[(shapes.split == 1) & (shapes.label == 0)]
    assert np.array_equal(task.test.part, test)
    # what only test shapes show decides nothing
    part[(shapes.split == 1) & (shapes.label == 1)] = shapes.part_label[(shapes.split == 1) & (shapes.label == 1)]
    again = PartTask.of(ShapeSet("bells", shapes.points, shapes.label, ("up", "down"), part, names, shapes.split))
    assert again.categories == ("up",)


def test_categories_and_parts_of_another_set_are_matched_by_name():
    train, data = two_categories(), two_categories(test=8)
    # the same shapes with other numbers, without a split, and with a part that the train set has not
    order = ("rod", "dent", "high", "low")
    part = np.array([3, 0, 2])[data.part_label]
    part[:, 0], part[0, 1] = 1, -1
    other = ShapeSet("other", data.points, 1 - data.label, ("down", "up"), part, order)
    task = PartTask.of(other, train)
    assert task.categories == ("up", "down") and task.parts == ("low", "rod", "high")
    assert (len(task.train), len(task.test)) == (24, len(data))
    np.testing.assert_array_equal(task.test.category, data.label)
    np.testing.assert_array_equal(task.test.part[1:, 1:], data.part_label[1:, 1:])
    assert (task.test.part[:, 0] == -1).all() and task.test.part[0, 1] == -1
    nameless = ShapeSet("other", data.points, data.label, ("up", "down"), np.ones_like(part))
    with pytest.raises(InputError, match="other: part_label: no test shape of up, down has their parts"):
        PartTask.of(nameless, train)
    with pytest.raises(InputError, match="bare: part_label: missing"):
        PartTask.of(other, ShapeSet("bare", train.points, train.label, ("up", "down")))


def test_parts_without_names_that_were_not_learned_count_as_unknown():
    train, data = two_categories(), two_categories(test=8)
    part = data.part_label.copy()
    part[:, :2] = 7
    bare, learned = (
        ShapeSet("bare", points, label, ("up", "down"), parts)
        for points, label, parts in ((data.points, data.label, part), (train.points, train.label, train.part_label))
    )
    task = PartTask.of(bare, learned)
    assert task.parts == ("0", "1", "2") and (task.test.part[:, :2] == -1).all()
    np.testing.assert_array_equal(task.test.part[:, 2:], data.part_label[:, 2:])


@pytest.mark.parametrize(
    "all_of", [pytest.param(None, id="none"), pytest.param(0, id="one"), pytest.param(-1, id="unknown")]
)
def test_sets_without_parts_are_refused(all_of):
    shapes = two_categories()
    part = None if all_of is None else np.full(shapes.points.shape[:2], all_of)
    message = "part_label: missing" if all_of is None else "no category has"
    with pytest.raises(InputError, match=message):
        PartTask.of(ShapeSet("bells", shapes.points, shapes.label, part_label=part, split=shapes.split))


def test_the_category_and_the_points_teach_what_they_can_and_only_parts_of_the_category_are_answered():
    task = PartTask.of(two_categories())
    settings = PartSettings(head=PartProbeConfig(steps=150))
    learned, trivial = parts(["coordinates", "majority"], {"bells": task}, seeds=[0], settings=settings)
    assert learned["metrics"]["instance_miou_percent"]["mean"] > 90
    assert trivial["metrics"]["instance_miou_percent"]["mean"] < 20
    assert learned["teacher"] is None and learned["test_shapes"] == 12
    inputs = PartInputs.of(task.train, Preprocessing(points=96, groups=16, neighbors=8))
    bank = inputs.bank(Subject("coordinates"), "last")
    allowed = torch.tensor([[True, True, False], [False, True, True]])
    bank.part = torch.ones_like(bank.part)
    found = part_probabilities(fit_part_probe(bank, allowed, PartProbeConfig(steps=3), 0), bank)
    assert (found[bank.category == 0][..., 2] == 0).all() and (found[bank.category == 1][..., 0] == 0).all()


def test_a_head_is_a_pure_function_of_its_seed():
    bank = PartInputs.of(PartTask.of(two_categories()).train, Preprocessing(points=96, groups=16, neighbors=8)).bank(
        Subject("coordinates"), "last"
    )
    allowed = torch.ones(2, 3, dtype=torch.bool)
    state = torch.random.get_rng_state()
    one, same, other = (
        part_probabilities(fit_part_probe(bank, allowed, PartProbeConfig(steps=4), seed), bank) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_every_point_is_placed_in_the_frame_that_the_model_sees():
    points, truth = dumbbells(2, 0)
    clouds = PartClouds(points * 5 + 3, np.zeros(2, np.int64), truth)
    size = Preprocessing(points=96, groups=16, neighbors=8)
    inputs = PartInputs.of(clouds, size)
    for number, cloud in enumerate(clouds.points):
        seen, index = geometry.prepare(cloud, size.points)
        assert np.allclose(inputs.point[number, index, :3].float(), seen, atol=2e-3)
        distance = np.linalg.norm(inputs.point[number, :, :3].float().numpy()[:, None] - seen[None], axis=-1)
        assert distance.shape == (160, 96)
        nearest = inputs.groups.centers[number][inputs.index[number, :, 0].long()]
        offset = inputs.point[number, :, 3:6].float()
        assert torch.allclose(inputs.point[number, :, :3].float() - nearest, offset, atol=2e-3)
    assert torch.allclose(inputs.weight.float().sum(-1), torch.ones(2, 160), atol=5e-3)


def test_local_geometry_knows_a_plane_from_a_line_and_not_its_size():
    rng = np.random.default_rng(0)
    plane = np.concatenate([rng.uniform(-1, 1, (300, 2)), np.zeros((300, 1))], axis=1).astype(np.float32)
    known = local_geometry(plane)
    assert np.allclose(known[:, [2, 4, 5, 8]], 0, atol=1e-6) and (known[:, :2] > 0).all()
    assert np.allclose(known, local_geometry(7 * plane), atol=1e-3)
    line = plane * [1, 0, 0]
    assert np.allclose(local_geometry(line.astype(np.float32))[:, [1, 2, 3, 4, 5, 7, 8]], 0, atol=1e-6)


def test_votes_keep_points_and_parts_together():
    points, truth = dumbbells(3, 0)
    clouds = PartClouds(points, np.zeros(3, np.int64), truth)
    same, roll = vote_view(clouds, 0)
    assert same is clouds and roll == 0
    view, roll = vote_view(clouds, 2)
    assert np.array_equal(np.roll(view.part, roll, axis=1), truth)
    back = np.roll(view.points, roll, axis=1)
    assert not np.allclose(back, points) and np.abs(back - points).max() < 0.75
    assert not np.array_equal(view.points[:, 0], back[:, 0])


@pytest.mark.parametrize("architecture, kind, budget", [(TINY, "teacher", None), (tiny_student(), "student", 2)])
def test_all_depths_begin_with_the_last(architecture, kind, budget):
    torch.manual_seed(0)
    network = create_perception(card(architecture)).eval().backbone
    source = Source("m", network, Preprocessing(points=96, groups=16, neighbors=8), (2,) if budget else (), budget)
    points, truth = dumbbells(2, 0)
    groups = PartInputs.of(PartClouds(points, np.zeros(2, np.int64), truth), source.size).groups
    last, every = (token_levels(Subject("m", source), groups, levels) for levels in ("last", "all"))
    assert every.shape[2] > last.shape[2]
    assert torch.allclose(every[..., : last.shape[2]].float(), last.float(), atol=2e-3)


def test_the_procedural_set_has_every_category_and_its_parts_and_no_shape_twice():
    shapes = procedural_shapes(2, 1, points=64)
    assert len(shapes) == 3 * len(CATEGORIES) and (shapes.split == 1).sum() == len(CATEGORIES)
    for label, part in zip(shapes.label, shapes.part_label):
        assert {PART_NAMES[p] for p in part} <= set(CATEGORY_PARTS[CATEGORIES[label]])
    assert len({cloud.tobytes() for cloud in shapes.points}) == len(shapes)
    more = procedural_shapes(3, 1, points=64)
    assert np.array_equal(more.points[0], shapes.points[0]) and np.array_equal(more.points[3], shapes.points[2])
    assert not np.array_equal(procedural_shapes(2, 1, points=64, seed=1).points, shapes.points)


def test_the_command_writes_rows_with_differences_and_votes(foundry, tmp_path):
    shapes = two_categories()
    np.savez(
        tmp_path / "bells.npz", points=shapes.points, label=shapes.label, class_names=np.array(shapes.class_names),
        part_label=shapes.part_label, part_names=np.array(shapes.part_names), split=shapes.split,
    )  # fmt: skip
    model = tmp_path / "tiny"
    save_model(model, create_perception(card(TINY)), card(TINY))
    arguments = ["--data", tmp_path / "bells.npz", "--model", "coordinates", "--model", f"random:{model}"]
    options = ["--steps", 5, "--votes", 2, "--seeds", 2, "--levels", "all", "--by-category"]
    code, out, error = foundry("evaluate", "parts", *arguments, *options, "--json", tmp_path / "rows.json")
    assert code == 0, error
    assert "mIoU by category" in out
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["model"] for row in rows] == [str(model), "coordinates", f"random:{model}"]
    for row in rows:
        assert (row["protocol"], row["data"], row["steps"], row["votes"], row["seeds"]) == ("parts", "bells", 5, 2, 2)
        assert all(set(metric) == {"mean", "std"} for metric in row["metrics"].values())
        assert row["categories"]["up"]["parts"] == ["low", "rod", "high"] and row["categories"]["up"]["shapes"] == 6
    teacher, other = (row["metrics"] for row in rows[:2])
    assert "instance_minus_teacher_points" not in teacher
    for prefix in ("", "voted_"):
        expected = other[f"{prefix}instance_miou_percent"]["mean"] - teacher[f"{prefix}instance_miou_percent"]["mean"]
        assert other[f"{prefix}instance_minus_teacher_points"]["mean"] == pytest.approx(expected, abs=0.02)


def test_unknown_levels_are_one_clear_line(foundry):
    code, _, error = foundry("evaluate", "parts", "--data", "x.npz", "--model", "majority", "--levels", "some")
    assert code == 2 and error.count("\n") == 1 and "--levels some: unknown; use last or all" in error
