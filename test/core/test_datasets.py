# SPDX-License-Identifier: Apache-2.0
"""Public data sets in folders of the official layouts: what becomes of them, and what is said where one is faulty."""

import json
import shutil
import sys

import numpy as np
import public_sets
import pytest

from foundry_core.data.datasets import LAYOUTS
from foundry_core.data.datasets.off import read_off
from foundry_core.data.datasets.shapenetpart import PART_NAMES
from foundry_core.data.shapes import data_name, load_shapes
from foundry_core.errors import InputError

HDF5 = ("modelnet40_h5", "scanobjectnn")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of a tiny set by the name of its maker, made once."""
    folders = {}

    def make(name):
        if name in HDF5:
            pytest.importorskip("h5py")
        if name not in folders:
            folders[name] = getattr(public_sets, name)(tmp_path_factory.mktemp(name))
        return folders[name]

    return make


def extent(points) -> np.ndarray:
    return np.ptp(points.astype(np.float32), axis=0)


def test_modelnet40_hdf5(made):
    shapes = load_shapes(made("modelnet40_h5"))
    assert shapes.points.shape == (36, 2048, 3) and shapes.points.dtype == np.float32
    assert shapes.class_names == ("airplane", "bathtub", "night_stand")
    np.testing.assert_array_equal(shapes.split, np.repeat([0, 1], [24, 12]))
    np.testing.assert_array_equal(shapes.label, np.tile(np.repeat([0, 1, 2], 4), 3))
    rod = extent(shapes.points[shapes.label == 2][0])
    assert rod[2] > 1.8 and rod[:2].max() < 0.3  # y was up, now z is


def test_modelnet40_resampled_text(made):
    shapes = load_shapes(made("modelnet40_txt"))
    assert shapes.points.shape == (8, 2048, 3) and shapes.class_names == ("airplane", "night_stand")
    np.testing.assert_array_equal(shapes.label, [0, 0, 0, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(shapes.split, [0, 0, 0, 0, 0, 0, 1, 1])
    rows = np.loadtxt(made("modelnet40_txt") / "night_stand" / "night_stand_0004.txt", delimiter=",")[:2048, :3]
    np.testing.assert_allclose(shapes.points[7], rows[:, [0, 2, 1]] * (1, -1, 1), atol=1e-6)


def test_modelnet40_meshes_are_sampled_by_area_and_always_alike(made):
    shapes = load_shapes(made("modelnet40_off"))
    assert shapes.points.shape == (6, 2048, 3) and shapes.class_names == ("bathtub", "night_stand")
    np.testing.assert_array_equal(shapes.label, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(shapes.split, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(shapes.points, load_shapes(made("modelnet40_off")).points)
    box = shapes.points[4]  # 2 x 4 x 6, z up as in the files
    size = extent(box)
    np.testing.assert_allclose(size / size[0], (1, 2, 3), rtol=0.02)
    top = box[:, 2] > box[:, 2].max() - 1e-4
    assert top.mean() == pytest.approx(8 / 88, abs=0.03)  # the top's share of the surface
    assert not np.array_equal(shapes.points[3], shapes.points[4])


def test_shapenet55(made):
    shapes = load_shapes(made("shapenet55"))
    assert shapes.points.shape == (6, 2048, 3) and len(shapes.class_names) == 55
    named = [shapes.class_names[label] for label in shapes.label]
    assert named == ["airplane", "airplane", "washer", "washer", "airplane", "washer"]
    np.testing.assert_array_equal(shapes.split, [0, 0, 0, 0, 1, 1])
    assert (extent(shapes.points[0]) > (0, 0, 1.8)).all() and extent(shapes.points[0])[0] < 0.3
    assert len(np.unique(shapes.points[0], axis=0)) > 2000  # drawn without repetition


@pytest.mark.parametrize(("variant", "train"), [("obj_bg", 3), ("obj_only", 4), ("pb_t50_rs", 5)])
def test_scanobjectnn_variants(made, variant, train):
    path = f"{variant}:{made('scanobjectnn')}"
    shapes = load_shapes(path)
    assert (len(shapes.train()), len(shapes.test())) == (train, 2) and data_name(path) == variant
    assert len(shapes.class_names) == 15
    assert [shapes.class_names[label] for label in shapes.test().label] == ["bed", "pillow"]


def test_a_folder_with_several_variants_asks_for_one(made, tmp_path):
    root = made("scanobjectnn")
    with pytest.raises(InputError, match=f"several sets; give obj_bg:{root} or obj_only:{root} or pb_t50_rs:{root}"):
        load_shapes(root)
    shutil.copytree(root / "main_split_nobg", tmp_path / "one" / "main_split_nobg")
    assert len(load_shapes(tmp_path / "one")) == 6


def test_shapenetpart(made):
    shapes = load_shapes(made("shapenetpart"))
    assert shapes.points.shape == (12, 2048, 3) and shapes.part_label.shape == (12, 2048)
    assert shapes.class_names == ("Airplane", "Cap", "Table") and len(shapes.part_names) == 50
    assert shapes.part_names[:5] == ("Airplane 0", "Airplane 1", "Airplane 2", "Airplane 3", "Bag 0")
    assert PART_NAMES[47] == "Table 0" and PART_NAMES[30] == "Motorbike 0" and PART_NAMES[12] == "Chair 0"
    assert len(shapes.train()) == 9 and len(shapes.test()) == 3  # train and val are learned from
    # parts stay with their points: the second part is the upper half
    for first, label in ((0, 0), (6, 1), (47, 2)):
        chosen = shapes.label == label
        np.testing.assert_array_equal(shapes.part_label[chosen], first + (shapes.points[chosen][..., 2] > 0))


def test_the_layout_and_names_of_every_set_are_unique(made):
    for name, layout in LAYOUTS.items():
        assert name == layout.name and layout.source.startswith("https://")
    makers = {"modelnet40_h5": 1, "modelnet40_txt": 1, "modelnet40_off": 1, "shapenet55": 1, "shapenetpart": 1}
    for maker, count in {**makers, "scanobjectnn": 3}.items():
        assert sum(layout.matches(made(maker)) for layout in LAYOUTS.values()) == count


def _drop(file):
    return lambda root: (root / file).unlink()


def _write(file, text):
    return lambda root: (root / file).write_text(text)


MODEL = "02954340/model2.txt"
FAULTS = [
    ("modelnet40_h5", _drop("shape_names.txt"), "shape_names.txt: missing; .*modelnet40_ply_hdf5_2048.zip"),
    ("modelnet40_h5", _drop("ply_data_train1.h5"), "ply_data_train1.h5: missing; .*the .h5 files"),
    ("modelnet40_h5", _write("ply_data_test0.h5", "x"), "ply_data_test0.h5: damaged"),
    ("modelnet40_h5", _write("shape_names.txt", "airplane\nbathtub\n"), "label 2, but shape_names.txt has 2"),
    ("modelnet40_h5", _write("test_files.txt", "\n"), "test_files.txt: empty"),
    ("modelnet40_txt", _drop("airplane/airplane_0002.txt"), "airplane_0002.txt: missing; .*x,y,z,nx,ny,nz"),
    ("modelnet40_txt", _write("modelnet40_test.txt", "piano_0001\n"), "piano_0001 is of no class"),
    ("modelnet40_txt", _write("airplane/airplane_0001.txt", "1 2 3\n"), "airplane_0001.txt: other columns"),
    ("modelnet40_txt", _drop("modelnet40_train.txt"), "modelnet40_train.txt: missing"),
    ("modelnet40_off", _drop("bathtub/test/bathtub_0003.off"), "no .off file; .*CLASS/test"),
    ("modelnet40_off", _write("bathtub/train/bathtub_0001.off", "OFF\n3 1 0\n"), "fewer numbers than 3 vertices"),
    ("shapenet55", _drop("ShapeNet-55/test.txt"), "test.txt: missing; ShapeNet55 has"),
    ("shapenet55", _write("ShapeNet-55/test.txt", "00000000-1.npy\n"), "00000000 is none of the 55 synsets"),
    ("shapenet55", _write(f"shapenet_pc/04554684-{3:032x}.npy", "x"), "no .npy file"),
    ("scanobjectnn", _drop("main_split/test_objectdataset.h5"), "test_objectdataset.h5: missing; .*OBJ_BG"),
    ("shapenetpart", _drop(MODEL), "model2.txt: missing; ShapeNetPart has"),
    ("shapenetpart", _write(MODEL, "0 0 0 0 0 0 9\n1 0 0 0 0 0 9\n"), "a part outside 6..7, those of Cap"),
    ("shapenetpart", _write("synsetoffset2category.txt", "Piano\t1\n"), "'Piano.1' is none of the 16"),
    ("shapenetpart", _drop("train_test_split/shuffled_val_file_list.json"), "val_file_list.json: missing"),
    ("shapenetpart", _write("train_test_split/shuffled_val_file_list.json", "[1]"), "not a list of SYNSET/MODEL"),
]


@pytest.mark.parametrize(("maker", "break_it", "message"), FAULTS, ids=[fault[2][:30] for fault in FAULTS])
def test_a_faulty_folder_is_one_line_that_says_what_is_expected(made, tmp_path, maker, break_it, message):
    root = tmp_path / "copy"
    shutil.copytree(made(maker), root)
    break_it(root)
    name = {"scanobjectnn": "obj_bg"}.get(maker, maker.replace("_", "-"))
    with pytest.raises(InputError, match=message) as caught:
        load_shapes(f"{name}:{root}")
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


def test_other_folders(made, tmp_path):
    with pytest.raises(InputError, match="no data set that is known; expected .*modelnet40-h5.*docs/data.md"):
        load_shapes(tmp_path)
    inner = made("modelnet40_off")
    with pytest.raises(InputError, match=f"did you mean {inner}"):
        load_shapes(inner.parent)
    with pytest.raises(InputError, match=r"nowhere: no such folder; ShapeNetPart has"):
        load_shapes(f"shapenetpart:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="no such file or folder"):
        load_shapes(tmp_path / "nowhere")


def test_without_h5py_the_line_says_how_to_get_it(made, monkeypatch):
    root = made("modelnet40_h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="needs h5py: pip install"):
        load_shapes(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solid\n", "not an OFF"),
        ("OFF\n", "without counts"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 one 0\n3 0 1 2\n", "something else"),
        (public_sets.off_text(faces=[(0, 1, 8)]), "outside 0..7"),
        (public_sets.off_text(faces=[(0, 1, 2, 3), (0, 1, 2, 3)])[:-3], "other corners"),
    ],
)
def test_faulty_meshes(tmp_path, text, message):
    (tmp_path / "mesh.off").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_off(tmp_path / "mesh.off")


def test_a_cache_tells_variants_in_one_folder_apart(made, tmp_path):
    torch = pytest.importorskip("torch")
    from foundry_core.architecture import Preprocessing
    from foundry_core.data.stream import ShapeStream, StreamConfig
    from foundry_core.training.cache import cache_key
    from foundry_core.training.shape_features import cached

    root, size = made("scanobjectnn"), Preprocessing(points=64, groups=8, neighbors=8)
    names = [f"{name}:{root}" for name in ("obj_bg", "obj_only")]

    def key(name):
        return cache_key("teacher-small", ShapeStream(StreamConfig(files=[{"path": name}]), 64, 0), size)

    assert key(names[0]) == key(names[0]) != key(names[1])
    read = lambda centers, neighborhoods: torch.zeros(len(centers), 8, 4)  # noqa: E731
    for name in (*names, names[0]):
        cached(read, load_shapes(name).train(), size, tmp_path, "model", [])
    assert len(list(tmp_path.iterdir())) == 2


def test_polygons_become_fans_and_comments_are_skipped(tmp_path):
    sides = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    text = public_sets.off_text(faces=sides).replace("OFF\n", "# made by hand\nOFF # box\n", 1)
    (tmp_path / "mesh.off").write_text(text)
    mesh = read_off(tmp_path / "mesh.off")
    assert len(mesh.triangles) == 12 and mesh.areas().sum() == pytest.approx(88)


def test_a_modelnet40_folder_goes_through_the_probe_embed_and_convert(made, tiny_model, tmp_path, foundry):
    pytest.importorskip("sklearn")
    torch = pytest.importorskip("torch")
    from test_models import TINY, card

    from foundry_core.models.registry import create_perception, save_model

    torch.manual_seed(0)
    save_model(tmp_path / "tiny", create_perception(card(TINY)), card(TINY))
    root, output = made("modelnet40_h5"), tmp_path / "rows.json"
    arguments = ["evaluate", "probe", "--model", tmp_path / "tiny", "--seeds", 1, "--json", output]
    assert foundry(*arguments, "--data", root)[0] == 0
    row = json.loads(output.read_text())[0]
    assert row["data"] == "modelnet40_ply_hdf5_2048" and (row["train_shapes"], row["test_shapes"]) == (24, 12)
    assert row["metrics"]["linear_accuracy_percent"]["mean"] >= 90  # a sphere, a cube and a rod

    assert foundry("embed", "--model", tiny_model, "--data", root, "--out", tmp_path / "f.npz")[0] == 0
    with np.load(tmp_path / "f.npz") as archive:
        assert len(archive["features"]) == 36
    assert foundry("shapes", "convert", root, "--out", tmp_path / "set.npz")[0] == 0
    np.testing.assert_array_equal(load_shapes(tmp_path / "set.npz").points, load_shapes(root).points)

    head = ["head", "--model", tmp_path / "tiny", "--kind", "ncm", "--cache", tmp_path / "cache", "--data", root]
    code, _, error = foundry(*head, "--out", tmp_path / "head")
    assert code == 0, error

    shutil.copytree(root, tmp_path / "broken")
    (tmp_path / "broken" / "ply_data_test0.h5").unlink()
    code, _, error = foundry(*arguments, "--data", tmp_path / "broken")
    assert code == 2 and error.count("\n") == 1 and "ply_data_test0.h5: missing" in error
