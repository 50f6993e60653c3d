"""Reports as JSON files that appear whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.core.tables import whole_file


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Sorted, indented, whole or not at all; ValueError for NaN and infinity."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, sort_keys=True, indent=2, allow_nan=False) + "\n", encoding="utf-8")
