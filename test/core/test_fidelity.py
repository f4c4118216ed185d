# SPDX-License-Identifier: Apache-2.0
"""Fidelity: controls on models whose answers are known, whole rows, the commands and their pictures."""

import json
from functools import reduce

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from head_family import save, write_models  # noqa: E402
from test_evaluation import shapes_file  # noqa: E402, F401
from test_models import TINY, card, clouds, tiny_student  # noqa: E402

from foundry_core.card import Training  # noqa: E402
from foundry_core.cli.main import main as foundry  # noqa: E402
from foundry_core.data.shapes import load_shapes  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.evaluation import measures  # noqa: E402
from foundry_core.evaluation.answers import ask, ask_teacher, collect, same_tokenizer  # noqa: E402
from foundry_core.evaluation.features import Groups, Source, group_clouds, pooled_features, resolve  # noqa: E402
from foundry_core.evaluation.fidelity import Row, averages, choose_budgets, choose_teacher, fidelity  # noqa: E402
from foundry_core.evaluation.ownership import owners  # noqa: E402
from foundry_core.evaluation.probe import Split  # noqa: E402
from foundry_core.evaluation.subjects import subjects, with_teacher  # noqa: E402
from foundry_core.evaluation.tradeoff import draw_tradeoff, join  # noqa: E402
from foundry_core.models.registry import create_perception, save_model  # noqa: E402
from foundry_core.models.student import Student  # noqa: E402
from foundry_core.models.teacher import Teacher  # noqa: E402
from foundry_core.training.distill import r_squared  # noqa: E402


def main(arguments) -> int:
    """Exit code of a command."""
    try:
        return foundry(arguments)
    except SystemExit as end:
        return end.code or 0


# -- answers and controls --------------------------------------------------------------------------------------------


def test_controls_tell_a_student_that_uses_its_supertokens_from_one_that_does_not():
    torch.manual_seed(0)
    groups = Groups(*clouds(6))
    teacher = Teacher(TINY).eval()
    with_tokens, target = ask_teacher(teacher, groups)
    assert torch.allclose(target, teacher(*clouds(6))["tokens"], atol=1e-6)

    class Honest(torch.nn.Module):
        def forward(self, centers, neighborhoods, budget, tokens=None):
            return {"tokens": target, "supertokens": target, "assignment": torch.eye(16).repeat(6, 1, 1)}

        def rebuild(self, out, supertokens):
            return supertokens

    class Idle(Honest):
        def rebuild(self, out, supertokens):
            return out["tokens"]

    (honest,) = collect(Honest(), groups, [16], target, seeds=[0, 1])
    (idle,) = collect(Idle(), groups, [16], target, seeds=[0, 1])
    assert honest.values["r2"] == [1.0] and idle.values["r2_shuffled"] == [1.0, 1.0]
    order = torch.from_numpy(measures.derangement(6, np.random.default_rng(1)))
    assert honest.values["r2_shuffled"][1] == pytest.approx(float(r_squared(target[order], target)), abs=1e-5)
    assert "r2_without_supertokens" not in honest.values  # only a student has a residual to stand on
    assert with_tokens.tokens.shape == (6, 16, 24)


def test_a_students_controls_replace_its_supertokens_and_nothing_else():
    torch.manual_seed(0)
    student = Student(tiny_student(count=4, alone=True)).eval()
    teacher = Teacher(TINY).eval()
    groups, target = ask_teacher(teacher, Groups(*clouds(5)))
    assert not same_tokenizer(student, teacher)
    student.tokenizer.load_state_dict(teacher.tokenizer.state_dict())
    assert same_tokenizer(student, teacher)
    bare = Groups(groups.centers, groups.neighborhoods)
    for budget, spared, plain in zip(
        (4, 2), collect(student, groups, [4, 2], target), collect(student, bare, [4, 2], target), strict=True
    ):
        assert np.allclose(spared.pooled, plain.pooled, atol=1e-5)
        with torch.no_grad():
            out = student(*clouds(5), budget)
        assert plain.values["r2"][0] == pytest.approx(float(r_squared(out["tokens"], target)), rel=1e-4)
        assert plain.supertokens_pooled.shape == (5, 48)
        with torch.no_grad():
            (batch,) = ask(student, *clouds(5), [budget])
            assert torch.allclose(batch.rebuild(batch.supertokens), out["tokens"], atol=1e-5)
            without = float(r_squared(batch.rebuild(torch.zeros_like(batch.supertokens)), target))
        assert plain.values["r2_without_supertokens"][0] == pytest.approx(without, rel=1e-4)
        assert plain.values["r2_without_supertokens"] != plain.values["r2"]
        alone = float(r_squared(batch.alone, target))
        assert plain.values["r2_supertokens_alone"][0] == pytest.approx(alone, rel=1e-4)


# -- whole rows ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A teacher and a student that names it, random weights, as model directories beside each other."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    base = card(TINY)
    save_model(folder / "teacher", create_perception(base), base.model_copy(update={"name": "teacher"}))
    made = Training(
        task="foundation model distillation", data=[], seed=0, steps=1, batch=1, minutes=0, parent="teacher"
    )
    pupil = card(tiny_student(count=4)).model_copy(
        update={"name": "pupil", "kind": "student", "budgets": [2, 4], "training": [made]}
    )
    save_model(folder / "pupil", create_perception(pupil), pupil)
    return folder


def test_the_teacher_is_perfectly_faithful_to_itself_and_shifts_change_its_accuracy_only(shapes_file, models):  # noqa: F811
    teacher = resolve(str(models / "teacher"))
    split = Split.of(load_shapes(shapes_file))
    clean, shifted = fidelity([teacher], teacher, {"solids": split}, seeds=[0, 1], shifts=[("jitter", 5)])
    for row in (clean, shifted):
        values = row.values
        assert values["r2"] == [1.0] and values["cka"][0] == pytest.approx(1)
        assert values["neighbor_overlap_percent"] == [100.0] and values["swap_same_answer_percent"] == [100.0, 100.0]
        assert values["swap_loss_points"] == values["probe_loss_points"] == [0.0, 0.0]
        assert row.budget is None and row.shapes == (90, 34) and "supertokens_used" not in values
    assert clean.values["teacher_accuracy_percent"] != shifted.values["teacher_accuracy_percent"]
    source = resolve(str(models / "teacher"))
    train, test = (
        pooled_features(source, group_clouds(part.points, source.size)) for part in (split.train, split.test)
    )
    from foundry_core.evaluation.probe import probe_accuracy

    expected = [probe_accuracy("linear", train, split.train.label, test, split.test.label, seed) for seed in (0, 1)]
    assert clean.values["teacher_accuracy_percent"] == pytest.approx(expected, abs=3.0)


def test_averages_are_over_data_sets_row_by_row():
    def row(data, budget, *accuracy):
        return Row(data, "test", None, "m", "t", budget, (3, 2), (0, 1), {"swap_accuracy_percent": list(accuracy)})

    rows = [row("a", 4, 10.0, 20.0), row("b", 4, 30.0, 60.0), row("a", 2, 1.0, 1.0), row("b", 2, 3.0, 3.0)]
    four, two = averages(rows)
    assert four.data == "average" and four.budget == 4 and four.values == {"swap_accuracy_percent": [20.0, 40.0]}
    assert two.values == {"swap_accuracy_percent": [2.0, 2.0]} and four.shapes == (6, 4)
    assert list(averages(rows[:1])) == []


def test_the_command_finds_the_teacher_and_writes_a_row_for_each_budget_and_shift(shapes_file, models, tmp_path):  # noqa: F811
    student, tome = str(models / "pupil"), f"tome:3:{models / 'teacher'}"
    arguments = ["evaluate", "fidelity", "--model", student, "--model", tome, "--data", str(shapes_file)]
    arguments += ["--shift", "rotation:2", "--seeds", "2", "--json", str(tmp_path / "rows.json")]
    assert not main(arguments)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["model"], row["budget"], row["severity"]) for row in rows] == [
        (student, 4, None), (student, 2, None), (tome, 3, None), (student, 4, 2), (student, 2, 2), (tome, 3, 2),
    ]  # fmt: skip
    for row in rows:
        assert row["protocol"] == "fidelity" and row["data"] == "solids" and row["split"] == "test"
        assert row["teacher"] == str(models / "teacher") and (row["train_shapes"], row["test_shapes"]) == (90, 34)
        metrics = row["metrics"]
        assert all(set(value) == {"mean", "std"} for value in metrics.values())
        assert {"r2", "cosine", "cka", "r2_shuffled", "supertoken_accuracy_percent", "swap_loss_points"} <= set(metrics)
        assert ("r2_without_supertokens" in metrics) == (row["model"] == student)
        loss = metrics["teacher_accuracy_percent"]["mean"] - metrics["swap_accuracy_percent"]["mean"]
        assert metrics["swap_loss_points"]["mean"] == pytest.approx(loss, abs=1e-3)


def test_classifiers_may_be_learned_from_another_set_which_changes_accuracies_only(shapes_file, models, tmp_path):  # noqa: F811
    solids = dict(np.load(shapes_file))
    chosen = np.arange(0, 90, 2)
    renamed = {"label": 2 - solids["label"][chosen], "class_names": solids["class_names"][::-1]}
    np.savez(tmp_path / "fewer.npz", points=solids["points"][chosen], **renamed)
    np.savez(tmp_path / "bare.npz", points=solids["points"], split=solids["split"])
    rows = {}
    for data, train in ((shapes_file, None), (shapes_file, "fewer"), (tmp_path / "bare.npz", "fewer")):
        arguments = ["evaluate", "fidelity", "--model", str(models / "pupil"), "--budget", "2", "--data", str(data)]
        arguments += ["--train", str(tmp_path / f"{train}.npz")] if train else []
        assert not main([*arguments, "--seeds", "1", "--json", str(tmp_path / "rows.json")])
        (rows[data.name, train],) = json.loads((tmp_path / "rows.json").read_text())
    own, other, bare = rows.values()
    assert (own["train"], own["train_shapes"]) == (None, 90)
    assert (other["train"], other["train_shapes"], other["test_shapes"]) == ("fewer", 45, 34)
    for name in ("r2", "cka", "supertokens_used"):  # of the test clouds alone
        assert own["metrics"][name] == other["metrics"][name]
    assert other["metrics"]["teacher_accuracy_percent"]["mean"] > 45  # chance is 33
    assert bare["train_shapes"] == 45 and not any("accuracy" in name for name in bare["metrics"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "histogram"], "histogram: has no token features"),
        (["--model", "TEACHER"], "names no teacher; give --teacher"),
        (["--model", "PUPIL", "--teacher", "PUPIL"], "is a student; give a teacher"),
        (["--model", "PUPIL", "--budget", "3"], "runs with 2, 4; name one of these"),
        (["--model", "tome:0:TEACHER"], "give tome:NUMBER:TEACHER"),
        (["--model", "tome:TEACHER"], "give tome:NUMBER:TEACHER"),
        (["--model", "tome:2:PUPIL"], "is a student; tome compresses a teacher"),
        (["--model", "PUPIL", "--shift", "rain"], "--shift rain: unknown corruption"),
        (["--model", "PUPIL", "--shift", "jitter:6"], "unknown severity"),
        (["--model", "PUPIL", "--split", "all"], "--split all: unknown part"),
        (["--model", "PUPIL", "--train", "SHAPES", "--split", "validation"], "leave the other set out"),
    ],
)
def test_bad_requests_are_refused_in_one_line(shapes_file, models, tmp_path, capsys, arguments, words):  # noqa: F811
    places = {"TEACHER": models / "teacher", "PUPIL": models / "pupil", "SHAPES": shapes_file}
    named = [reduce(lambda text, name: text.replace(name, str(places[name])), places, a) for a in arguments]
    output = tmp_path / "rows.json"
    assert main(["evaluate", "fidelity", "--data", str(shapes_file), "--json", str(output), *named]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error and not output.exists()


def test_budgets_are_the_wanted_ones_that_a_model_has():
    source = Source("m", torch.nn.Identity(), card(TINY).preprocessing, (1, 2, 4))
    assert choose_budgets(source, []) == [4, 2, 1] and choose_budgets(source, [2, 8, 2]) == [2]
    with pytest.raises(InputError, match="runs with 1, 2, 4"):
        choose_budgets(source, [8])


def test_validation_never_sees_the_test_split_and_leaves_twins_out(shapes_file):  # noqa: F811
    data = load_shapes(shapes_file)
    split = Split.of(data, validation=True)
    train, test = {p.tobytes() for p in data.train().points}, {p.tobytes() for p in data.test(twins=True).points}
    inner, held = {p.tobytes() for p in split.train.points}, {p.tobytes() for p in split.test.points}
    assert inner | held <= train and not inner & held and not held & test and not inner & test
    assert all(count == 22 for count in np.bincount(split.train.label))  # three quarters of 30 in each class
    again = Split.of(data, validation=True)
    assert np.array_equal(again.test.points, split.test.points)
    mirrored = data.train()
    twice = np.concatenate([mirrored.points] * 2)
    doubled = type(data)("doubled", twice, np.concatenate([mirrored.label] * 2), data.class_names)
    assert len(Split.of(doubled, validation=True).test) < 0.5 * len(twice) / 4


# -- pictures --------------------------------------------------------------------------------------------------------


def test_points_belong_to_the_supertoken_of_their_nearest_centre(models, shapes_file, tmp_path):  # noqa: F811
    cloud = load_shapes(shapes_file).points[0]
    source = resolve(f"fps:3:{models / 'teacher'}")
    ((points, owner),) = owners(source, cloud, [3])
    assert len(points) == source.size.points and set(owner) == {0, 1, 2}
    with pytest.raises(InputError, match="no supertokens"):
        owners(resolve(f"pca:3:{models / 'teacher'}"), cloud, [3])
    arguments = ["evaluate", "ownership", "--model", str(models / "pupil"), "--data", str(shapes_file)]
    assert not main([*arguments, "--out", str(tmp_path / "owners.png")])
    assert (tmp_path / "owners.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--index", "126", "--out", str(tmp_path / "none.png")]) == 2


def test_fidelity_and_latency_are_joined_by_model_and_budget(tmp_path, capsys):
    def row(data, budget, swap):
        metrics = {"swap_accuracy_percent": {"mean": swap, "std": 0.5}, "r2": {"mean": 0.9, "std": 0.0}}
        metrics["teacher_accuracy_percent"] = {"mean": 70.0, "std": 0.1}
        return {"data": data, "model": "m", "teacher": "t", "budget": budget, "shift": None, "metrics": metrics}

    rows = [row("a", 4, 60.0), row("a", 2, 55.0), row("average", 4, 66.0), row("average", 2, 61.0)]
    rows.append({**row("average", 4, 1.0), "shift": "jitter"})
    timed = [("m", 4, 2.0), ("m", 2, 1.0), ("t", None, 8.0), ("other", None, 3.0)]
    bench = [
        {"model": m, "budget": b, "p50_ms": ms, "runtime": "onnxruntime", "precision": "fp32", "threads": 1}
        for m, b, ms in timed
    ]
    points = join(rows, bench, "swap_accuracy_percent", None)
    (label,) = points
    assert label == "onnxruntime fp32, 1 thread"
    assert {tuple(p)[:4] for p in points[label]} == {("m", 4, 2.0, 66.0), ("m", 2, 1.0, 61.0), ("t", None, 8.0, 70.0)}
    assert {p.value for p in join(rows, bench, "r2", "a")[label]} == {0.9, 1.0}
    draw_tradeoff(points, "swap_accuracy_percent", tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    for bad in ({"metric": "nope", "data": None}, {"metric": "r2", "data": "z"}):
        with pytest.raises(InputError, match="give"):
            join(rows, bench, **bad)
    with pytest.raises(InputError, match="was timed"):
        join(rows, bench[3:], "r2", None)
    (tmp_path / "rows.json").write_text("{}")
    arguments = ["evaluate", "tradeoff", "--fidelity", str(tmp_path / "rows.json"), "--bench", "x", "--out", "y.png"]
    assert main(arguments) == 2 and "not a list of rows" in capsys.readouterr().err


def test_another_model_of_the_teachers_name_is_not_taken_for_it(tmp_path):
    models = write_models(tmp_path)
    student = resolve(str(models / "student"))
    assert choose_teacher([student], None).name == str(models / "teacher")
    found = subjects([str(models / "student")], (), 0, ())
    assert with_teacher(found, None, 0)[1] == str(models / "teacher")

    save(models / "teacher", TINY, 3)  # trained anew: other weights
    for choose in (lambda: choose_teacher([student], None), lambda: with_teacher(found, None, 0)):
        with pytest.raises(InputError, match="other weights than the teacher that it was made from; .*--teacher"):
            choose()
    assert choose_teacher([student], str(models / "teacher")).name == str(models / "teacher")  # who names it, means it
    (models / "teacher").rename(models / "elsewhere")
    with pytest.raises(InputError, match="its teacher .*teacher is not found; give --teacher"):
        choose_teacher([student], None)
