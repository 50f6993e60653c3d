"""The folder with the photos' files: which photo is which file, its sum, its caption. Nothing outside it is read.

A photo id comes from strangers, so it is never made into a path: it is looked up among the names that the folder
itself lists, of regular files alone. No address is ever fetched.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.formats.fields import Unusable, text_of
from pipelines.formats.json_lines import json_lines

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CAPTIONS = "photos.jsonl"


@dataclass(frozen=True)
class PhotoFiles:
    folder: Path
    names: dict[str, str]  # a photo id, or a whole file name -> the file name
    captions: dict[str, str]  # photo id -> caption

    def path_of(self, photo_id: str) -> Path | None:
        """The photo's file; None where the folder has none."""
        name = self.names.get(photo_id)
        return None if name is None else self.folder / name


def list_photos(folder: Path) -> PhotoFiles:
    """Look through `folder` once; symlinks and subfolders are left out. UserError where it is no folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set `ingest.photos` to the photos' folder (it may be empty)")
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    names: dict[str, str] = {}
    for name in files:
        if Path(name).suffix.lower() in SUFFIXES:
            names.setdefault(Path(name).stem, name)
            names[name] = name
    return PhotoFiles(folder, names, read_captions(folder / CAPTIONS) if CAPTIONS in files else {})


def read_captions(path: Path) -> dict[str, str]:
    """Photo id -> caption of a sidecar of lines `{"photo_id": …, "caption": …}`; UserError at a broken line."""
    captions = {}
    for number, _, parsed in json_lines(path):
        if isinstance(parsed, Unusable) or not isinstance(parsed.get("photo_id"), str):
            raise UserError(f'{path}: line {number}: expected {{"photo_id": "…", "caption": "…"}}; mend or remove it')
        if caption := text_of(parsed.get("caption")):
            captions[parsed["photo_id"]] = caption
    return captions


def sha256_of(path: Path) -> str:
    """The sum of the file's bytes. A symlink put there since the folder was listed is refused by the system."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
