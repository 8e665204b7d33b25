"""Loads the configuration: the environment over the file over the defaults.

The file is YAML with `events:` as its only top-level key. The environment overrides single keys:
`EVENTLOG__STORAGE__ROTATION__MAX_SIZE=50MB` is events.storage.rotation.max_size. Everything that is wrong, in
both together, is one EventConfigException. This module alone reads the environment.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from shared.config import kinds
from shared.config.model import EventConfig
from shared.config.problems import ROOT, Origins, describe
from shared.config.yaml_file import read_yaml
from shared.errors import EventConfigException
from shared.suggestion import did_you_mean

ENVIRONMENT_PREFIX = "EVENTLOG__"


def load_config(path: Path | None, environ: Mapping[str, str] | None = None) -> EventConfig:
    """Load the file at path, None for none, and let the environment override it.

    environ: the environment; None means the process's own.
    Raises EventConfigException with everything that is wrong: the path of the key, the value, what to write.
    """
    written = _Layer() if path is None else _file_layer(path)
    overrides = _environment_layer(os.environ if environ is None else environ)
    problems = [*written.problems, *overrides.problems]
    try:
        values = _merged(overrides.values, written.values)
        config = EventConfig.model_validate(values, context=kinds.WRITTEN)
    except ValidationError as error:
        problems += describe(error, overrides.origins)
    if problems:
        file = "the configuration" if path is None else f"the configuration in {path}"
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise EventConfigException(f"{file} has {len(problems)} problem(s):{listed}")
    return config


@dataclass(slots=True)
class _Layer:
    """What one place gives for the keys under `events:`, and what is wrong about its form."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: Origins = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _file_layer(path: Path) -> _Layer:
    layer = _Layer()
    document = read_yaml(path)
    if document is None:
        return layer
    if not isinstance(document, dict):
        raise EventConfigException(f"{path} is no mapping; write `{ROOT}:` and the sections below it")
    for key in document.keys() - {ROOT}:
        layer.problems.append(f"{key} is not known at the top{did_you_mean(str(key), [ROOT])}")
    values = document.get(ROOT)
    if isinstance(values, dict):
        layer.values = values
    elif values is not None:
        layer.problems.append(f"{ROOT} is {values!r}; write sections such as storage: below it")
    return layer


def _environment_layer(environ: Mapping[str, str]) -> _Layer:
    layer = _Layer()
    # Sorted, so that a variable comes before those of the keys below it.
    for name in sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX)):
        path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        if not all(path):
            example = f"{ENVIRONMENT_PREFIX}STORAGE__BASE_PATH"
            layer.problems.append(f"{name} names no key; write names such as {example}")
            continue
        parent: Any = layer.values
        for section in path[:-1]:
            parent = parent.setdefault(section, {}) if isinstance(parent, dict) else parent
        if isinstance(parent, dict):
            parent[path[-1]] = environ[name]
            layer.origins[path] = name
        else:
            layer.problems.append(f"{name} is given, and so is what it is a part of; remove one of the two")
    return layer


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """The layers as one, key by key; earlier ones win."""

    class Layers(BaseSettings):
        events: dict[Any, Any] = {}

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **_standard: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            # None of the default sources: they would read the process's environment.
            return tuple(InitSettingsSource(settings_cls, {ROOT: layer}) for layer in layers)

    return Layers().events
