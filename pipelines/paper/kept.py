"""What was trained is kept in the cache folder by all that decides it, so that an interrupted stage goes on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
# What trains and judges networks: a change of it makes everything that is kept worthless. Vocabularies size a table.
COMPUTES = (
    "models/*.py",
    "pipelines/learning.py",
    "pipelines/core/tables.py",
    "pipelines/core/training_rows.py",
    "pipelines/core/vocabulary.py",
    "pipelines/vocabularies/restaurant_types.json",
)


def code_digest(*more: str) -> str:
    """sha256 of the code and vocabularies that compute, of files by the patterns `more`, and of torch's version."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted({path for pattern in (*COMPUTES, *more) for path in ROOT.glob(pattern)}):
        digest.update(f"\n{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key_of(*parts: Any) -> str:
    """sha256 of `parts` as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()
