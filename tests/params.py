"""The repository's params.yaml with some values changed, as tests need it."""

from pathlib import Path
from typing import Any

import yaml

from pipelines.core.params import Params, load_params

ROOT = Path(__file__).parents[1]


def write_params(path: Path, **changes: Any) -> Path:
    """Write params.yaml to `path` with `section__key=value` (or `key=value`) changes."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, value in changes.items():
        *sections, key = name.split("__")
        into = raw
        for section in sections:
            into = into[section]
        into[key] = value
    path.write_text(yaml.safe_dump(raw))
    return path


def params_with(folder: Path, **changes: Any) -> Params:
    return load_params(write_params(folder / "params.yaml", **changes))
