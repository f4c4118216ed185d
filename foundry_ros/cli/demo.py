# SPDX-License-Identifier: Apache-2.0
"""``foundry demo``: simulated world, recording, real nodes, ground truth, report and picture."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundry_core.cli.world import Sensor, parse_world, progress_bar
from foundry_core.errors import InputError

if TYPE_CHECKING:
    from foundry_core.evaluation.matching import Match
    from foundry_core.scene.config import SceneConfig

_CLOSE_UPS, _ENOUGH = 8, 120


def run_demo(
    out: Path,
    sensor: str = "lidar",
    seconds: float = 10.0,
    seed: int = 0,
    model: str | None = None,
    budget: int | None = None,
    rate: float | None = None,
) -> dict[str, Any]:
    """Simulate, replay through the nodes, compare; writes ``bag/``, ``report.json`` and ``demo.png`` to ``out``.

    Returns:
        the report: the figures of :func:`foundry_ros.cli.ros.run_replay` and of
        :meth:`foundry_core.evaluation.matching.Matching.report`.
    """
    from foundry_core.card import find_model, load_card
    from foundry_core.cli.common import DEFAULT_MODEL, write_json
    from foundry_core.data.world.bag import write_world_bag
    from foundry_core.evaluation.matching import match_bag
    from foundry_core.runtime.session import check_budget
    from foundry_core.scene.config import room_config, street_config
    from foundry_ros.cli.ros import run_replay
    from foundry_ros.processes import require_ros

    require_ros()
    card = load_card(find_model(model or DEFAULT_MODEL))
    if card.heads.objects is None or card.heads.parts is None:
        raise InputError(f"{card.name}: the model has no heads for objects and parts; train them with `foundry head`")
    check_budget(card, budget, "--budget")
    config = parse_world(sensor, None, seconds, seed)
    scene = street_config() if config.kind == "street" else room_config()
    out = Path(out)
    with progress_bar("simulating") as advance:
        bag = write_world_bag(out / "bag", config, force=True, progress=advance)
    with tempfile.TemporaryDirectory(prefix=".demo_", dir=out) as folder:  # the answers of all frames are large
        results = Path(folder) / "results.npz"
        replayed = run_replay(bag, _parameters(scene, Path(folder)), model, budget, rate, "/points", results)
        matching = match_bag(bag, results, scene)
        world = {"kind": config.kind, "sensor": config.sensor, "seconds": config.seconds, "seed": config.seed}
        report = {**replayed, **matching.report(), "world": world}
        write_json(out / "report.json", report)
        draw_report(results, matching.matches, report, out / "demo.png")
    return report


def _parameters(scene: SceneConfig, folder: Path) -> Path:
    import yaml

    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({"perception_node": {"ros__parameters": {"scene": scene.model_dump()}}}), "utf-8")
    return path


def choose_close_ups(matches: Sequence[Match], count: int = _CLOSE_UPS) -> list[Match]:
    """The objects to show: of each true class the match with the most points, rightly named or not."""
    best: dict[str, Match] = {}
    for match in matches:
        if match.true_class not in best or match.points > best[match.true_class].points:
            best[match.true_class] = match
    chosen = sorted(best.values(), key=lambda match: (match.points < _ENOUGH, match.true_class))
    return chosen[:count]


def draw_report(results: Path, matches: Sequence[Match], report: dict[str, Any], path: Path) -> None:
    """Draw the frame with the most matched objects, and close-ups from the whole recording."""
    from collections import Counter

    from foundry_core.evaluation.demo_picture import CloseUp, draw_demo
    from foundry_core.records import names_of, positions, read_labels, read_results

    if not matches:
        raise InputError(f"{results}: nothing was matched, so there is nothing to draw; see the report")
    classes, parts = names_of(read_labels(results), results)
    fullest = Counter(match.stamp_ns for match in matches).most_common(1)[0][0]
    chosen = choose_close_ups(matches)
    shown, close_ups = None, {}
    for frame in read_results(results):
        if frame.stamp_ns == fullest:
            shown = frame
        for match in chosen:
            if match.stamp_ns != frame.stamp_ns:
                continue
            own = frame.parts[frame.parts["object_id"] == match.found_object]
            probability = float(frame.objects["probability"][match.found_object])
            truth = None if match.found_class == match.true_class else match.true_class
            close_ups[match] = CloseUp(positions(own), own["part_id"], match.found_class, probability, truth)
    subtitle = (
        f"{report['model']}, budget {report['budget']}   |   {report['frames_processed']} of {report['frames_sent']} "
        f"frames, {report['frames_dropped']} dropped, {report['latency_ms']['p50']:.0f} ms   |   "
        f"{report['objects_matched']} of {report['objects_true']} objects found, {report['class_accuracy']:.0%} named "
        f"rightly, part mIoU {report['part_miou']:.2f}"
    )
    place = {"street": "on a simulated street", "room": "in a simulated room"}[report["world"]["kind"]]
    title = f"Objects and their parts, {place}"
    ordered = [close_ups[match] for match in chosen]
    draw_demo(shown.parts, shown.objects, classes, parts, ordered, path, title, subtitle)


def _print(report: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    from foundry_core.cli.common import console

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    latency = report["latency_ms"]
    table = Table(show_header=False)
    for row in (
        ("model", f"{report['model']}, budget {report['budget']}"),
        ("frames", "{frames_sent} sent, {frames_processed} processed, {frames_dropped} dropped".format(**report)),
        ("latency", ", ".join(f"{key} {value:.1f} ms" for key, value in latency.items() if value is not None)),
        ("objects", "{objects_matched} of {objects_true} found, {objects_left_out} too far or hidden".format(**report)),
        ("class accuracy", share(report["class_accuracy"])),
        ("part mIoU", share(report["part_miou"])),
        ("written", f"{out / 'report.json'}, {out / 'demo.png'}, {out / 'bag'}"),
    ):
        table.add_row(*row)
    console.print(table)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""

    @app.command()
    def demo(
        out: Annotated[Path, typer.Option(help="folder of the report, the picture and the bag")] = Path("out/demo"),
        seed: Annotated[int, typer.Option(help="seed of the simulated world", min=0)] = 2026,
        seconds: Annotated[float, typer.Option(help="length of the recording", min=0.1, max=600)] = 10.0,
        sensor: Annotated[Sensor, typer.Option(help="lidar on a street, or depth camera in a room")] = Sensor.lidar,
        model: Annotated[str | None, typer.Option(help="shipped model or model directory")] = None,
        budget: Annotated[int | None, typer.Option(help="supertokens to run with", min=1)] = None,
        rate: Annotated[
            float | None, typer.Option(help="times real time; without it every frame in turn", min=0.01, max=1000)
        ] = None,
    ) -> None:
        """See it work: a simulated world, played through the real nodes and scored against its ground truth.

        Needs no data and no configuration. Writes report.json, demo.png and the recording itself (bag/).

        Example: foundry demo --out out/demo
        """
        from foundry_core.cli.common import error_console
        from foundry_ros.processes import NodeFailed

        try:
            report = run_demo(out, sensor.value, seconds, seed, model, budget, rate)
        except NodeFailed as error:
            error_console.print(str(error), markup=False, highlight=False)
            raise typer.Exit(1) from None
        _print(report, out)
