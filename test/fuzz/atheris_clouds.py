# SPDX-License-Identifier: Apache-2.0
"""Serialised PointCloud2 messages made by libFuzzer, which looks for new paths through the reader and the decoder.

``PYTHONPATH=.:test python -m fuzz.atheris_clouds [-max_total_time=S] [-runs=N] [CORPUS...]``, in an environment that
has atheris, too (``pip install atheris``). By default for a minute, from the messages of `fuzz.clouds`; the corpus is
kept in out/fuzz-clouds. What fails is written to out/ as crash-*, timeout-* or oom-*, and the exit code is not 0.
"""

from __future__ import annotations

import sys
from pathlib import Path

CORPUS, SEEDS = Path("out/fuzz-clouds"), 300
#: s for a run, s for a message, bytes of a message, MB of the process
BOUNDS = {"-max_total_time": 60, "-timeout": 10, "-max_len": 4096, "-rss_limit_mb": 2048}


def arguments(given: list[str]) -> list[str]:
    """libFuzzer's arguments: the given ones, bounds for what they leave open, and a corpus."""
    named = {argument.partition("=")[0] for argument in given}
    if "-runs" in named:
        named.add("-max_total_time")
    bounds = [f"{name}={value}" for name, value in BOUNDS.items() if name not in named]
    if all(argument.startswith("-") for argument in given):
        given = [*given, str(CORPUS)]
    return [*bounds, "-artifact_prefix=out/", *given]


def main() -> int:
    try:
        import atheris
    except ImportError:
        print("fuzz.atheris_clouds: atheris is not installed: pip install atheris, or run make fuzz", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["foundry_core.cdr", "foundry_core.pointcloud2", "foundry_core.clouds"]):
        from fuzz import clouds, guard

    def one(data: bytes) -> None:
        with guard.strict():
            clouds.judge(data)

    CORPUS.mkdir(parents=True, exist_ok=True)
    for number in range(SEEDS):
        (CORPUS / f"seed-{number}").write_bytes(clouds.case(0, number).wire)
    atheris.Setup([sys.argv[0], *arguments(sys.argv[1:])], one)
    atheris.Fuzz()  # ends the process: with 0, or 77 when something failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
