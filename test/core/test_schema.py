# SPDX-License-Identifier: Apache-2.0
"""YAML files: plain values come through, everything else is one line that names file and line."""

import pytest
from pydantic import model_validator

from foundry_core.errors import InputError
from foundry_core.schema import Settings, parse, read_yaml


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
        (b"\xff\xfe\x00", "is no text"),
    ],
)
def test_a_faulty_file_is_named_in_one_line(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read .*give a YAML file"):
        read_yaml(tmp_path)


class _Size(Settings):
    low: int
    high: int = 9

    @model_validator(mode="after")
    def _rises(self):
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "here: low: missing; give it a value"),
        ({"low": 10}, "here: (top level): low must not exceed high"),
        ({"low": "x"}, "here: low: Input should be a valid integer, unable to parse string as an integer; correct it"),
        ([1], "here: (top level): expected keys and their values"),
        ({"low": 1, "middle": 2}, "here: middle: unknown key; remove it or correct its spelling"),
    ],
)
def test_what_does_not_fit_the_schema_is_said_in_plain_words(values, line):
    with pytest.raises(InputError) as caught:
        parse(_Size, values, "here")
    assert str(caught.value) == line
