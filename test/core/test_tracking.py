# SPDX-License-Identifier: Apache-2.0
"""Figures of tracks: counted by hand, and on a simulated room."""

from __future__ import annotations

import json

import pytest
from tiny_model import SUPERTOKENS

from foundry_core.cli.main import main
from foundry_core.evaluation.tracking import Score


def scored(*frames) -> dict[str, float]:
    """Frames of {true object: (track, frame's label, fused label) or None}, all of class car, and clutter at key -1."""
    score = Score()
    for frame in frames:
        tracks = [answer for answer in frame.values() if answer is not None]
        pairs = [(true, tracks.index(answer), "car") for true, answer in frame.items() if answer and true >= 0]
        score.add([true for true in frame if true >= 0], pairs, tracks)
    return score.metrics()


def test_a_perfect_sequence():
    figures = scored(*[{0: (4, "car", "car"), 1: (7, "car", "car")}] * 5)
    assert figures["mota"] == 1.0 and figures["class_accuracy_frame"] == figures["class_accuracy_fused"] == 1.0
    wrong = ("id_switches", "fragmentations", "misses", "false_named", "flicker_frame", "flicker_fused")
    assert [figures[name] for name in wrong] == [0] * 6
    assert (figures["frames"], figures["visible"], figures["matched"], figures["tracks"]) == (5, 10, 10, 2)


def test_a_switch_and_a_fragmentation_are_different_things():
    a, b, none = (1, "car", "car"), (2, "car", "car"), (-1, "car", "car")
    swapped = scored({0: a}, {0: a}, {0: b}, {0: b}, {0: a})
    assert (swapped["id_switches"], swapped["fragmentations"], swapped["misses"]) == (2, 0, 0)
    assert swapped["mota"] == pytest.approx(1 - 2 / 5)
    broken = scored({0: none}, {0: a}, {0: None}, {0: none}, {0: a}, {0: None})
    assert (broken["id_switches"], broken["fragmentations"], broken["misses"]) == (0, 1, 4)
    assert broken["matched"] == 4
    hidden = scored({0: a}, {}, {0: a})  # out of sight is no fragmentation
    assert (hidden["fragmentations"], hidden["misses"]) == (0, 0)
    assert scored({0: a}, *[{}] * 9, {0: b})["id_switches"] == 1
    assert scored({0: a}, *[{}] * 10, {0: b})["id_switches"] == 0  # out of sight for too long
    both = scored({0: a}, {0: None}, {0: b})
    assert (both["id_switches"], both["fragmentations"]) == (1, 1)


def test_clutter_counts_only_when_it_is_named():
    clutter = [{-1: (3, "unknown", "unknown")}, {-1: (3, "unknown", "dog")}, {-1: (-1, "dog", "dog")}]
    assert scored(*clutter)["false_named"] == 1


def test_flicker_and_accuracy_with_and_without_fusion():
    track = [(0, "car", "car"), (0, "bus", "car"), (0, "unknown", "car"), (0, "car", "bus")]
    figures = scored(*({0: sighting} for sighting in track))
    assert (figures["flicker_frame"], figures["flicker_fused"]) == (3, 1)
    assert (figures["class_accuracy_frame"], figures["class_accuracy_fused"]) == (0.5, 0.75)


def foundry(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as end:
        return end.code or 0


def test_a_deadline_leaves_most_objects_to_what_their_tracks_were(tiny_model, tmp_path):
    path = tmp_path / "rows.json"
    arguments = ["evaluate", "tracks", "--model", str(tiny_model), "--seconds", "1", "--sensor", "rgbd", "--seed", "3"]
    metrics = {}
    for name, more in (("none", []), ("hasty", ["--deadline", "0.001"])):
        assert foundry(*arguments, *more, "--json", str(path)) == 0
        metrics[name] = {key: value["mean"] for key, value in json.loads(path.read_text())[0]["metrics"].items()}
    assert metrics["none"]["looked_at"] == 1.0 and 0 < metrics["hasty"]["looked_at"] < 0.5
    assert metrics["hasty"]["visible"] == metrics["none"]["visible"]


def test_the_command_writes_a_row(tiny_model, tmp_path, capsys):
    path = tmp_path / "rows.json"
    arguments = ["evaluate", "tracks", "--model", str(tiny_model), "--seconds", "0.5", "--sensor", "rgbd"]
    assert foundry(*arguments, "--seed", "3", "--seeds", "2", "--json", str(path)) == 0
    (row,) = json.loads(path.read_text())
    assert {"protocol", "data", "model", "budget", "seed", "metrics"} <= row.keys()
    assert (row["protocol"], row["model"], row["budget"], row["seed"], row["seeds"]) == (
        "tracks",
        "tiny",
        SUPERTOKENS,
        3,
        2,
    )
    assert row["metrics"]["frames"] == {"mean": 5.0, "std": 0.0}
    assert row["metrics"]["visible"]["mean"] > 0
    assert 0 < row["metrics"]["matched"]["mean"] <= row["metrics"]["visible"]["mean"]
    assert all(set(cell) == {"mean", "std"} for cell in row["metrics"].values())
    assert "flicker_fused" in capsys.readouterr().out


def test_bad_options_are_one_line(capsys):
    assert foundry("evaluate", "tracks", "--seconds", "9999") == 2
    assert capsys.readouterr().err.startswith("foundry: invalid value for '--seconds'")
