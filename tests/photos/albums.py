"""A photos' folder with its table, as ingest makes them, and the stage run over it."""

import hashlib
import io
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines import describe_photos
from pipelines.core.tables import DESCRIPTIONS, PHOTO_REJECTS, PHOTOS, read_table
from tests.params import params_with, write_params


def picture(seed: int, side: int = 64) -> Image.Image:
    """Coloured squares, others for every seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(blocks.repeat(side // 8, 0).repeat(side // 8, 1))


def png(seed: int) -> bytes:
    written = io.BytesIO()
    picture(seed).save(written, "PNG")
    return written.getvalue()


class Album:
    def __init__(self, root: Path):
        self.root = root
        self.folder = root / "photos"
        self.folder.mkdir()
        self.table = root / "photos.parquet"
        self.out = root / "out" / "descriptions.parquet"
        self.rejects = root / "out" / "rejects.parquet"
        self.rows: list[dict[str, Any]] = []

    def add(self, photo_id: str, data: bytes | None = None, caption: str | None = None, suffix: str = "png") -> Path:
        """A photo with its file, or without one where there is no `data`."""
        path = self.folder / f"{photo_id}.{suffix}"
        if data is not None:
            path.write_bytes(data)
        self.row(photo_id, None if data is None else str(path), caption, data)
        return path

    def row(self, photo_id: str, path: str | None, caption: str | None = None, data: bytes | None = None) -> None:
        """A row alone, whatever it says."""
        sha256 = None if data is None else hashlib.sha256(data).hexdigest()
        row = {"photo_id": photo_id, "review_id": "r", "business_id": "b", "path": path, "caption": caption}
        self.rows.append(row | {"sha256": sha256})

    def write(self) -> None:
        pq.write_table(pa.Table.from_pylist(self.rows, PHOTOS), self.table)

    def describe(self, **settings: Any) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Run the stage; (photo id -> its description, photo id -> why it is rejected)."""
        self.write()
        paths = Namespace(photos_table=self.table, photos=self.folder, out=self.out, rejects=self.rejects)
        describe_photos.main(paths, params_with(self.root, **(self.settings() | settings)))
        return self.made()

    def settings(self) -> dict[str, Any]:
        return {"cache__dir": str(self.root / "cache"), "describe_photos__image_batch": 2}

    def command(self, **settings: Any) -> list[str]:
        """The stage's command line, to be run from the repository's root."""
        self.write()
        params = write_params(self.root / "params.yaml", **(self.settings() | settings))
        flags = {"photos-table": self.table, "photos": self.folder, "out": self.out, "rejects": self.rejects}
        flags["params"] = params
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "pipelines.describe_photos", *words]

    def made(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        described = read_table(self.out, DESCRIPTIONS).to_pylist()
        assert [row["photo_id"] for row in described] == sorted(row["photo_id"] for row in self.rows)
        rejects = read_table(self.rejects, PHOTO_REJECTS).to_pylist()
        return {row["photo_id"]: row for row in described}, {row["photo_id"]: row["reason"] for row in rejects}
