# SPDX-License-Identifier: Apache-2.0
"""Settings: one schema and one default for YAML files, command line options, node parameters and documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from foundry_core.errors import InputError


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, and no key twice: the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise _RepeatedKey(None, None, key.value, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


class _RepeatedKey(yaml.MarkedYAMLError):
    pass


#: a seed that every generator takes, with room for further ones behind it
MAX_SEED = 2**31 - 1


class Settings(BaseModel):
    """Base of every configuration model: immutable, closed to keys that it does not know, with finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: removed key -> what to write instead; a file that still has the key is told so
    removed_keys: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _name_the_replacement_of_removed_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in cls.removed_keys.keys() & values.keys():
                raise ValueError(f"key '{key}' was removed: {cls.removed_keys[key]}")
        return values


S = TypeVar("S", bound=Settings)


def parse(model: type[S], values: Any, source: str | Path) -> S:
    """Validate plain values.

    Raises:
        InputError: one line that names ``source``, the offending key and the reason.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise InputError(f"{source}: {key}: {_reason(first)}") from None


def _reason(error: Any) -> str:
    """What is wrong and what to do, of an error that pydantic describes."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return {
        "extra_forbidden": "unknown key; remove it or correct its spelling",
        "missing": "missing; give it a value",
        "union_tag_not_found": "key 'kind' is missing; say which",
        "model_type": "expected keys and their values",
    }.get(error["type"], f"{error['msg']}; correct it")


def read_yaml(path: str | Path) -> Any:
    """Plain values of a YAML file (an empty file is an empty mapping); no object is ever constructed from a tag."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a YAML file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text; give a YAML file") from None
    try:
        return yaml.load(text, _StrictLoader) or {}  # a SafeLoader
    except _RepeatedKey as error:
        where = f"{path}, line {error.problem_mark.line + 1}"
        raise InputError(f"{where}: {error.problem}: this key was given before; keep one of the two") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: not valid YAML; correct the file") from None


def load_settings(path: str | Path, model: type[S]) -> S:
    """Read one YAML file into ``model``; unknown, removed and ill-typed keys fail by name."""
    return parse(model, read_yaml(path), path)
