# SPDX-License-Identifier: Apache-2.0
"""HTML and SVG that cannot be written unescaped: text becomes markup only through :func:`tag`."""

from __future__ import annotations

from html import escape
from typing import Any

#: elements of HTML that have no end tag
_VOID = frozenset({"meta", "link", "img", "br", "col"})


class Html(str):
    """Finished markup; every other string is text, and is escaped where it is put into an element."""

    __slots__ = ()


def join(*children: Any) -> Html:
    """Children in a row: markup as it is, None nothing, lists one by one, anything else as escaped text."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, (list, tuple)):
            parts.append(join(*child))
        elif child is not None:
            parts.append(escape(str(child)))
    return Html("".join(parts))


def tag(element: str, *children: Any, **attributes: Any) -> Html:
    """An element; ``class_`` is class, ``stroke_width`` stroke-width. An attribute that is None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in _VOID:
        return Html(f"<{element}{written}>")
    return Html(f"<{element}{written}>{join(*children)}</{element}>")


def _plain(value: Any) -> str:
    """Numbers of a drawing to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
