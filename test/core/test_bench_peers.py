# SPDX-License-Identifier: Apache-2.0
"""The peers of the benchmark: the same numbers as their plain forms, and the original code from a folder."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from test_export import shake  # noqa: E402
from test_models import TINY, card  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from foundry_core.cli import bench_plan  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.export.bench_peers import FusedPointNet, PointNet, merged, write_merged  # noqa: E402
from foundry_core.export.bench_point_mae import NearestNeighbors, farthest_point_sample, gather  # noqa: E402
from foundry_core.export.bench_torch import ARCHITECTURES  # noqa: E402
from foundry_core.export.graph import example_inputs  # noqa: E402
from foundry_core.export.rewrite import for_inference  # noqa: E402
from foundry_core.geometry import farthest_point_sampling  # noqa: E402
from foundry_core.models.registry import create_perception, save_model  # noqa: E402
from foundry_core.runtime.bench import run_benchmark  # noqa: E402
from foundry_core.runtime.bench_pointnet import POINTS, operations, parameters  # noqa: E402
from foundry_core.runtime.macs import merging_products, total  # noqa: E402
from foundry_core.runtime.session import open_session  # noqa: E402
from foundry_core.schema import load_settings  # noqa: E402
from foundry_core.training.config import DistillConfig, PretrainConfig  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

#: the layout of the original repository with a network of a few weights: same names, same imports, same operators
STAND_IN = {
    "models/__init__.py": "from .build import MODELS\nimport models.Point_MAE\n",
    "models/build.py": "from utils import registry\n\nMODELS = registry.Registry('models')\n",
    "utils/registry.py": "class Registry(dict):\n    def __init__(self, name):\n        self.name = name\n",
    "utils/misc.py": """
from pointnet2_ops import pointnet2_utils

def sample(data, number):
    index = pointnet2_utils.furthest_point_sample(data, number)
    return pointnet2_utils.gather_operation(data.transpose(1, 2).contiguous(), index).transpose(1, 2).contiguous()
""",
    "models/Point_MAE.py": """
import torch
import timm
from timm.models.layers import DropPath, trunc_normal_
from knn_cuda import KNN
from extensions.chamfer_dist import ChamferDistanceL1, ChamferDistanceL2
from utils import misc
from .build import MODELS

class PointTransformer(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.groups, self.knn = config.num_group, KNN(k=config.group_size, transpose_mode=True)
        self.drop, self.head = DropPath(0.1), torch.nn.Linear(3, config.cls_dim)

    def forward(self, points):
        center = misc.sample(points, self.groups)
        _, index = self.knn(points, center)
        near = points[torch.arange(len(points))[:, None, None], index]
        return self.head(self.drop((near - center[:, :, None]).amax(dim=(1, 2))))
""",
}


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    network = create_perception(card(TINY)).eval()
    shake(network)
    with torch.no_grad():  # tokens unlike each other, so that rounding does not decide which of them merge
        for block in network.backbone.encoder.blocks:
            block.attention.key_value.weight *= 20
        network.backbone.position.layers[2].weight *= 20
    return network


@pytest.fixture
def checkout(tmp_path):
    for name, text in STAND_IN.items():
        path = tmp_path / "original" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "original"


@pytest.mark.parametrize("supertokens", [1, 5, 16])
def test_token_merging_is_rewritten_exactly_and_its_products_are_counted(teacher, supertokens):
    teacher.objects = teacher.parts = None
    network = merged(teacher, supertokens)
    fused = for_inference(network).backbone
    centers, neighborhoods, *_ = (torch.from_numpy(value) for value in example_inputs(card(TINY), 3).values())
    with torch.no_grad():
        expected, found = network.backbone(centers, neighborhoods), fused(centers, neighborhoods)
    for name in ("tokens", "supertokens"):
        assert (found[name] - expected[name]).abs().max() <= 1e-5 * max(1.0, float(expected[name].abs().max())), name
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fused(centers[:1], neighborhoods[:1])
    assert counter.get_total_flops() == 2 * total(merging_products(card(TINY), supertokens))


def test_the_graph_of_token_merging_gives_the_same_at_any_batch_size(teacher, tmp_path):
    save_model(tmp_path / "teacher", teacher, card(TINY))
    made = write_merged(tmp_path / "teacher", "tome:4:teacher", 4, tmp_path / "merged", ["fp32"])
    assert made.name == "tome:4:teacher" and made.heads.objects is None
    teacher.objects = teacher.parts = None
    network = merged(teacher, 4)
    session = open_session(tmp_path / "merged")
    for batch in (1, 5):
        inputs = dict(list(example_inputs(card(TINY), batch).items())[:2])
        with torch.no_grad():
            expected = network.backbone(*map(torch.from_numpy, inputs.values()))["tokens"].numpy()
        assert np.abs(session.run(inputs)["tokens"] - expected).max() < 1e-4


def test_the_edge_form_that_is_timed_is_the_one_that_can_be_trained():
    config = load_settings(ROOT / "config/train/foundry-edge-vits.yaml", DistillConfig).architecture
    timed = ARCHITECTURES["vits"]["vits-edge"]
    assert (timed.tokenizer, timed.encoder) == (config.tokenizer, config.encoder)
    shaping = ("upsampling", "mlp_ratio", "assignment", "gate")
    assert all(getattr(timed.supertokens, key) == getattr(config.supertokens, key) for key in shaping)
    teacher = load_settings(ROOT / "config/train/teacher-vits.yaml", PretrainConfig).architecture
    assert ARCHITECTURES["vits"]["vits-teacher"] == teacher


def test_pointnet_is_rewritten_exactly_and_counted():
    torch.manual_seed(0)
    network = PointNet().eval()
    shake(network)
    points = torch.randn(2, POINTS, 3)
    fused = FusedPointNet(network).eval()
    with torch.no_grad():
        expected = network(points)
        assert torch.allclose(fused(points), expected, atol=1e-4 * float(expected.abs().max()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fused(points[:1])
    assert counter.get_total_flops() == 2 * operations()
    assert sum(value.numel() for value in fused.parameters()) == parameters()


def test_the_replaced_operators_do_what_the_compiled_ones_do():
    points = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(0))
    index = farthest_point_sample(points, 12)
    assert index.dtype == torch.int32
    for cloud, row in zip(points.numpy(), index.numpy(), strict=True):
        assert (farthest_point_sampling(cloud, 12) == row).all()
    centers = gather(points.transpose(1, 2).contiguous(), index).transpose(1, 2)
    assert torch.equal(centers[1], points[1, index[1].long()])
    distance, near = NearestNeighbors(4, transpose_mode=True)(points, centers)
    assert near.shape == (2, 12, 4) and torch.equal(near[:, :, 0], index.long())
    assert float(distance[:, :, 0].max()) < 1e-2  # the square root of what rounding leaves


def test_the_original_code_is_measured_from_its_folder(checkout):
    item = bench_plan.point_mae(checkout)
    specs = bench_plan.specs([item], bench_plan.forms(["torch"], []), ["features"], [1], [2])
    assert [(spec.runtime, spec.peer) for spec in specs] == [("torch, as published", "point-mae")]
    rows, failures = run_benchmark(specs, rounds=1, repeats=2)
    assert not failures
    assert (rows[0]["model"], rows[0]["points"], rows[0]["params"], rows[0]["runs"]) == ("point-mae", 1024, 160, 2)


def test_a_folder_of_another_layout_is_refused_in_one_line(checkout, tmp_path, foundry):
    code, _, err = foundry("bench", "--point-mae", tmp_path / "nothing", "--quick")
    assert code == 2 and "no models/Point_MAE.py; give a checkout of https://github.com" in err
    (checkout / "models/Point_MAE.py").write_text("class PointTransformer:\n    pass\n")
    specs = bench_plan.specs([bench_plan.point_mae(checkout)], bench_plan.forms(["torch"], []), ["features"], [1], [1])
    rows, failures = run_benchmark(specs, rounds=1, repeats=1)
    assert not rows and "does not run as the original Point-MAE code does" in failures[0]


@pytest.mark.parametrize("name", ["pitome:16:teacher-small", "tome:x:teacher-small", "tome:16:"])
def test_what_is_no_timed_baseline_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="what is timed is tome:NUMBER:TEACHER"):
        bench_plan.models([name], tmp_path, [("torch", "fp32")])


def test_a_student_has_no_tokens_to_merge(tmp_path):
    with pytest.raises(InputError, match="foundry-edge is a student"):
        bench_plan.models(["tome:16:foundry-edge"], tmp_path, [("torch", "fp32")])
