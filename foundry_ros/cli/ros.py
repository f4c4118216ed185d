# SPDX-License-Identifier: Apache-2.0
"""`foundry replay` and `foundry up`: the nodes, without the ros2 command line."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundry_core.cli.common import console, error_console, require_picture, require_writable, write_json
from foundry_core.errors import InputError

if TYPE_CHECKING:
    from foundry_ros.processes import NodeProcess

Params = Annotated[Path | None, typer.Option("--params", help="ROS parameter file; an unknown key is an error")]
Model = Annotated[str | None, typer.Option("--model", help="shipped model or model directory")]
Budget = Annotated[int | None, typer.Option("--budget", min=1, help="supertokens to run with")]


def _settings(params: Path | None, perception: dict[str, Any], replay: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted parameters of each node: defaults, then the file, then what was given on the command line."""
    from foundry_core.card import find_model, load_card
    from foundry_core.runtime.session import check_budget
    from foundry_ros import parameters

    settings = parameters.read_parameters(params) if params else {n: s() for n, s in parameters.NODES.items()}
    ros = parameters.read_ros_parameters(params) if params else dict.fromkeys(parameters.NODES, {})
    values = {name: parameters.flatten(node) | ros[name] for name, node in settings.items()}
    values["perception_node"].update({key: value for key, value in perception.items() if value is not None})
    values["bag_replay"].update({key: value for key, value in replay.items() if value is not None})
    for name, schema in parameters.NODES.items():
        parameters.from_dotted(schema, values[name], "command line")
    model = find_model(values["perception_node"]["model"])
    where = f"{params}: budget:" if perception["budget"] is None else "--budget"
    check_budget(load_card(model, verify=False), values["perception_node"].get("budget"), where)
    values["perception_node"]["model"] = str(model.resolve())
    return values


def run_replay(
    bag: Path,
    params: Path | None = None,
    model: str | None = None,
    budget: int | None = None,
    rate: float | None = None,
    topic: str | None = None,
    results: Path | None = None,
    **play_options: Any,
) -> dict[str, Any]:
    """Play ``bag`` through the real nodes, each a process of its own, and return the report.

    ``rate`` None is lock-step; ``play_options`` are parameters of bag_replay. ``results`` is an .npz for
    :func:`foundry_core.records.read_results`.

    Raises:
        InputError: bag, parameters or model cannot be used.
        foundry_ros.processes.NodeFailed: a node crashed or could not be reached.
    """
    from foundry_core.data.bags import open_bag
    from foundry_ros import processes, signals

    processes.require_ros()
    with open_bag(bag) as opened:
        topic = opened.choose_point_cloud_topic(topic)
        total = opened.topics[topic].count
    with tempfile.TemporaryDirectory(prefix="foundry_replay_") as folder:
        report = Path(folder) / "report.json"
        play = {
            "bag": str(bag.resolve()), "topic": topic, "rate": 0.0 if rate is None else float(rate),
            "report": str(report), "results": str(results.resolve()) if results else None, "progress": True,
            **play_options,
        }  # fmt: skip
        values = _settings(params, {"model": model, "budget": budget}, play)
        values["perception_node"]["autostart"] = True
        if values["bag_replay"].get("clock"):
            values["perception_node"]["use_sim_time"] = True
        source = values["bag_replay"]["output"]
        with (
            signals.one_interrupt(),
            processes.Domain() as domain,
            processes.NodeProcess(
                "perception_node",
                values["perception_node"],
                processes.local_environment(domain.number),
                {"~/input": source if source.startswith("/") else f"/{source}"},
            ) as perception,
            processes.NodeProcess(
                "bag_replay", values["bag_replay"], processes.local_environment(domain.number)
            ) as player,
        ):
            _watch(perception, player, total * (play_options.get("loop") or 1))
        return json.loads(report.read_text(encoding="utf-8"))


def _watch(perception: NodeProcess, player: NodeProcess, total: int) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from foundry_ros.processes import NodeFailed

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    quiet = not error_console.is_terminal
    with Progress(*columns, console=error_console, transient=True, disable=quiet) as progress:
        task = progress.add_task("starting the nodes", total=total)
        while player.running():
            if not perception.running():
                perception.check()
                raise NodeFailed("perception_node ended before the replay did")
            for line in player.lines():
                if line.startswith('{"progress"'):
                    figures = json.loads(line)["progress"]
                    progress.update(task, completed=figures["processed"], description="frames answered")
            time.sleep(0.05)
    player.check()


def _picture(bag: Path, results: Path, path: Path) -> None:
    """The frame with the most objects, from above."""
    from foundry_core.evaluation.pictures import birds_eye
    from foundry_core.records import names_of, positions, read_labels, read_results

    best = max(read_results(results), key=lambda frame: len(frame.objects), default=None)
    if best is None:
        raise InputError(f"{path}: no frame of {bag} was answered, so there is nothing to draw")
    names, _ = names_of(read_labels(results), results)
    birds_eye(positions(best.parts), best.objects, path, names, title=f"{bag.name}, {len(best.objects)} objects")


def _losses(counts: dict[str, int | None]) -> str:
    if counts["received"] is None:
        return "not known: the node did not tell its counts at the end"
    shown = {
        "on the way": counts["lost_on_the_way"], "dropped by the node": counts["dropped"],
        "rejected": counts["rejected"], "nobody listened": counts["skipped"], "answers": counts["answers_lost"],
    }  # fmt: skip
    return ", ".join(f"{number} {what}" for what, number in shown.items() if number) or "nothing"


def _looked_at(counts: dict[str, int | None]) -> str:
    total, waited = counts["objects"], counts["objects_without_time"]
    if waited is None:
        return "not known"
    if not waited:
        return "all of them"
    return f"{1 - waited / total:.0%} of them in each frame; the others took turns and were what their track was"


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(show_header=False)
    rate = report["rate"]
    latency = report["latency_ms"]
    rows = [
        ("model", f"{report['model']}, budget {report['budget']}"),
        ("timing", "lock-step" if rate == 0 else f"{rate:g} x the bag's own"),
        ("frames", "{frames_sent} sent, {frames_processed} processed, {frames_dropped} dropped".format(**report)),
        ("lost", _losses(report["counts"])),
        ("throughput", f"{report['frames_per_s']:.1f} frames/s" if report["frames_per_s"] else "-"),
        ("latency", ", ".join(f"{k} {v:.1f} ms" for k, v in latency.items() if v is not None) or "no answers"),
        ("phases", ", ".join(f"{k} {v:.1f} ms" for k, v in report["phases_ms"].items()) or "none"),
        ("objects per frame", f"{report['objects_per_frame']:.1f}" if report["objects_per_frame"] is not None else "-"),
        ("looked at", _looked_at(report["counts"])),
    ]
    if late := report["counts"]["unexpected"]:
        rows.append(("not asked for", f"{late} answers: late ones, or to clouds of another publisher"))
    for topic, reason in report["left_out"].items():
        rows.append(("not played", f"{topic}: {reason}"))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def replay(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder, .mcap or .db3 file with point clouds")],
    params: Params = None,
    model: Model = None,
    budget: Budget = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="times the bag's own speed; without it every frame in turn")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="PointCloud2 topic, where the bag has several")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures to this file")] = None,
    results: Annotated[Path | None, typer.Option(help="write every frame's objects and parts to this .npz")] = None,
    picture: Annotated[Path | None, typer.Option(help="write a bird's-eye picture (.png) of the fullest frame")] = None,
    plot: Annotated[Path | None, typer.Option(help="write latencies and drops over time as .png")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="throughput: the next frame is sent before an answer")] = False,
    start: Annotated[float | None, typer.Option(min=0, help="s of the bag to leave out at the beginning")] = None,
    duration: Annotated[float | None, typer.Option(min=0.001, help="s of the bag to play")] = None,
    loop: Annotated[int | None, typer.Option(min=1, help="times to play")] = None,
    also: Annotated[str | None, typer.Option(help="topics to publish too, separated by commas, or all")] = None,
    clock: Annotated[bool, typer.Option("--clock", help="publish /clock; the node takes its time from it")] = False,
) -> None:
    """Play a recording through the real nodes and measure them.

    Without --rate the replay is in lock-step: every frame is processed and the figures can be reproduced. --rate 1
    is the recording's own timing: what the node cannot keep up with is dropped, and counted.

    Example: foundry replay recording/ --rate 1 --json replay.json --picture replay.png
    """
    from foundry_ros.processes import NodeFailed

    require_writable(json_file, "--json", bag, params)
    require_writable(results, "--results", bag, params)
    require_picture(picture, "--picture", bag, params)
    require_picture(plot, "--plot", bag, params)
    if results is not None and results.suffix != ".npz":
        raise InputError(f"{results}: results are written as .npz; give --results a name that ends so")
    if fast and rate is not None:
        raise InputError("--fast: sends as fast as the node answers; leave --rate out")
    play = {"in_flight": 2 if fast else None, "start": start, "duration": duration, "loop": loop, "also": also,
            "clock": clock or None}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="foundry_replay_") as folder:
        kept = results or (Path(folder) / "results.npz" if picture else None)
        try:
            report = run_replay(bag, params, model, budget, rate, topic, kept, **play)
        except NodeFailed as error:
            error_console.print(str(error), markup=False, highlight=False)
            raise typer.Exit(1) from None
        if picture:
            _picture(bag, kept, picture)
    if plot:
        from foundry_core.evaluation.replay_picture import draw_replay

        draw_replay(report, plot)
    if json_file:
        write_json(json_file, report)
    _print(report)


def up(
    params: Params = None,
    input_topic: Annotated[str, typer.Option("--input", help="PointCloud2 topic to listen to")] = "/points",
    model: Model = None,
    budget: Budget = None,
) -> None:
    """Run perception_node in the foreground until Ctrl-C, in your own ROS domain and discovery range.

    Example: foundry up --input /lidar/points
    """
    from foundry_ros import parameters, processes, signals

    processes.require_ros()
    try:
        parameters.ros_name(input_topic)
    except ValueError as error:
        raise InputError(f"--input {error}") from None
    values = _settings(params, {"model": model, "budget": budget}, {})["perception_node"]
    environment = processes.open_environment()
    code = 0
    with (
        contextlib.suppress(KeyboardInterrupt),
        signals.one_interrupt(),
        processes.NodeProcess("perception_node", values, environment, {"~/input": input_topic}, quiet=False) as node,
    ):
        while node.running():
            time.sleep(0.1)
        code = node.process.returncode
    if code:
        raise typer.Exit(code if code in (1, 2) else 1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(replay)
    app.command()(up)
