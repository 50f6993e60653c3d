"""Pictures of strangers: read from one folder alone, judged by their header before anything is decoded.

Nothing that a table or a file says leads out of the folder, over a link or to an address. Whatever is wrong with a
picture is a `BadPicture` with its reason, and costs no more memory than the file and one picture of `max_pixels`.
"""

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from pipelines.core.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP")  # by content; a file's suffix says nothing
WHITE = (255, 255, 255)  # behind what is transparent
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadPicture(Exception):
    """A file that is not described; the message is the reason, one line."""


@dataclass(frozen=True)
class PhotoFolder:
    """The folder that was given, open: files are named relative to it, so no path can lead elsewhere."""

    folder: Path
    handle: int
    max_bytes: int

    def read(self, path: str, sha256: str | None) -> bytes:
        """The bytes of the photo at `path`. BadPicture where it is no regular file of this folder with that sum."""
        try:
            data = self._read(self._name_of(path))
        except OSError as error:
            raise BadPicture(f"cannot be read: {error.strerror}") from None
        if sha256 is None:
            raise BadPicture("the photo table has no sha256 of it")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadPicture("changed since ingest: its sha256 is not the photo table's")
        return data

    def _name_of(self, path: str) -> str:
        if "://" in path:
            raise BadPicture("its path is an address; nothing is fetched")
        named = Path(path)
        if named.name in ("", "..") or "\0" in path or named.parent.absolute() != self.folder.absolute():
            raise BadPicture("its path is no file of the photos' folder")
        return named.name

    def _read(self, name: str) -> bytes:
        found = os.stat(name, dir_fd=self.handle, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            raise BadPicture("is a symbolic link; none is followed")
        if not stat.S_ISREG(found.st_mode):
            raise BadPicture("is no regular file")
        # should another have taken its place since: a link fails, a pipe is waited for by nobody
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=self.handle), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BadPicture("is no regular file")
            if found.st_size == 0:
                raise BadPicture("is empty")
            # one byte more than allowed: a file may grow between the two calls
            data = file.read(self.max_bytes + 1) if found.st_size <= self.max_bytes else None
            if data is None or len(data) > self.max_bytes:
                size = max(found.st_size, self.max_bytes + 1)
                raise BadPicture(f"too many bytes: {size:,}, describe_photos.max_bytes is {self.max_bytes:,}")
            return data


@contextmanager
def photo_folder(folder: Path, max_bytes: int) -> Iterator[PhotoFolder]:
    """Open the photos' folder. UserError where there is none."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be opened as a folder ({error.strerror}); set `ingest.photos` to the photos' folder"
        ) from None
    try:
        yield PhotoFolder(folder, handle, max_bytes)
    finally:
        os.close(handle)


@contextmanager
def _decoding(max_pixels: int) -> Iterator[None]:
    """Whatever a decoder raises over a stranger's bytes is the picture's fault, and becomes its reason."""
    limit, broken = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = max_pixels, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (BadPicture, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPicture(f"too many pixels: describe_photos.max_pixels is {max_pixels:,}") from None
    except Image.UnidentifiedImageError:
        raise BadPicture(f"is no picture: expected {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        reason = " ".join(str(error).split())[:200]
        raise BadPicture(f"is broken: {reason or type(error).__name__}") from None
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limit, broken


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=FORMATS)  # it compares the header's size with the limit set above


def check_header(data: bytes, max_pixels: int) -> None:
    """BadPicture where the header says that `data` is no picture, or a larger one; nothing is decoded."""
    with _decoding(max_pixels), _open(data):
        pass


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The picture (its first frame) in RGB, upright, on white. BadPicture where it cannot be had whole."""
    with _decoding(max_pixels), _open(data) as picture:
        picture.load()
        return _upright(_as_rgb(picture), picture)


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion would clip them at 255
        grey = np.clip(np.asarray(picture), 0, 65535)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        paint = picture.convert("RGBA")
        canvas = Image.new("RGB", paint.size, WHITE)
        canvas.paste(paint, mask=paint.getchannel("A"))
        return canvas
    return picture.convert("RGB")


def _upright(rgb: Image.Image, picture: Image.Image) -> Image.Image:
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION)
    except Exception:  # metadata that cannot be read turns no picture; its pixels are whole
        return rgb
    if not isinstance(orientation, int) or orientation not in UPRIGHT:
        return rgb
    return rgb.transpose(UPRIGHT[orientation])


def middle_square(picture: Image.Image, side: int, of: int) -> Image.Image:
    """The middle `side` x `side` of the picture with its shorter edge resized to `of`, as ImageNet's models see it.

    One resampling of the middle alone: a picture of 1 x 40,000,000 makes nothing large.
    """
    width, height = picture.size
    edge = min(width, height) * side / of
    left, top = (width - edge) / 2, (height - edge) / 2
    box = (left, top, left + edge, top + edge)
    return picture.resize((side, side), Image.Resampling.BILINEAR, box=box)


def as_jpeg(picture: Image.Image, longest: int) -> bytes:
    """The picture as JPEG of at most `longest` pixels an edge, without any metadata: what a model is shown."""
    width, height = picture.size
    scale = longest / max(width, height)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    bare = Image.new("RGB", picture.size)
    bare.paste(picture)  # `info`, with EXIF, comments and profiles, stays behind
    written = io.BytesIO()
    bare.save(written, "JPEG", quality=90)
    return written.getvalue()
