# SPDX-License-Identifier: Apache-2.0
"""The parameter tables of docs/nodes.md, from the schemas: ``PYTHONPATH=.:test python -m node_tables`` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from foundry_ros.parameters import AT_ONCE, NODES, READ_ONLY, NodeParameter, changes_at_run_time, node_parameters

PAGE = Path(__file__).resolve().parent.parent / "docs" / "nodes.md"


def bounds(parameter: NodeParameter) -> str:
    """The range in words."""
    low, high = parameter.low, parameter.high
    if low is None and high is None:
        return ""
    least = "" if low is None else f"above {low:g}" if parameter.above else f"from {low:g}"
    return " ".join(filter(None, (least, "" if high is None else f"to {high:g}")))


def when(node: str, name: str) -> str:
    """When a change takes effect."""
    if name in READ_ONLY.get(node, ()) or node == "bag_replay":
        return "start"
    if node == "distill_trainer":
        return "next `~/start`" if name in ("minutes", "nice") else "start"
    if not changes_at_run_time(name):
        return "configuration"
    return "at once" if name.startswith(AT_ONCE) else "next frame"


def shown(value: object) -> str:
    """A default, as YAML has it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if value != "" else '`""`'


def table(node: str) -> str:
    """The table of a node's parameters in Markdown."""
    rows = ["| Parameter | Default | Range | Takes effect | Meaning |", "|---|---|---|---|---|"]
    for item in node_parameters(NODES[node]):
        cells = [f"`{item.name}`", shown(item.default), bounds(item), when(node, item.name), item.description]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """The page with the present tables between its marks."""
    for node in NODES:
        begin, end = f"<!-- parameters of {node} -->\n", f"<!-- end of {node} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        text, count = re.subn(
            pattern, lambda _, node=node, b=begin, e=end: b + table(node) + "\n" + e, text, flags=re.S
        )
        assert count == 1, f"{PAGE}: no place for the parameters of {node}"
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
