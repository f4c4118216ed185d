# SPDX-License-Identifier: Apache-2.0
"""YAML files: plain values come through, everything else is one line that names file and line."""

import pytest

from foundry_core.errors import InputError
from foundry_core.schema import read_yaml


def test_plain_values_anchors_and_an_empty_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: [{k: 1}, {k: 2}]\n")
    assert read_yaml(path) == {"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}, "c": [{"k": 1}, {"k": 2}]}
    path.write_text("")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1}\na: 2\n", "line 3: a: this key was given before"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "line 4: b: this key was given before"),
        ("a: [", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"\xff\xfe\x00", "cannot be read as text"),
    ],
)
def test_a_faulty_file_is_named_in_one_line(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
