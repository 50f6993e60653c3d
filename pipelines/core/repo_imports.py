"""The feature repo on the import path."""

import sys
from pathlib import Path


def import_from(repo: Path) -> None:
    """Put the feature repo first on the import path: its files name each other flat, and Feast names the store so.

    First, so that a copy of the workspace uses its own files whatever the environment has installed.
    """
    folder = str(repo.resolve())
    if sys.path[0] != folder:
        sys.path.insert(0, folder)
