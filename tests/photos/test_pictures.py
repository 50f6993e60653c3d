"""Strangers' files: which are read, which are pictures, and what a bomb costs."""

import hashlib
import io
import os
import random
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.core.errors import UserError
from pipelines.core.photos.pictures import BadPicture, as_jpeg, check_header, decode, photo_folder
from tests.params import ROOT

MOST = 1_000_000


def saved(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    written = io.BytesIO()
    picture.save(written, kind, **options)
    return written.getvalue()


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """Blocks of four pixels: noise that survives JPEG."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 4), -(-width // 4), 3), np.uint8)
    return Image.fromarray(blocks.repeat(4, 0).repeat(4, 1)[:height, :width])


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("photos/a.png", "photos/sub/d.png", "outside.png"):
        (tmp_path / name).write_bytes(b"same bytes everywhere")
    (folder / "empty.png").touch()
    (folder / "link.png").symlink_to("a.png")
    (folder / "out.png").symlink_to(tmp_path / "outside.png")
    (folder / "dangling.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe.png")
    with photo_folder(folder, max_bytes=100) as opened:
        yield opened


SUM = hashlib.sha256(b"same bytes everywhere").hexdigest()


def reason_of(photos, path: str, sha256: str | None = SUM) -> str:
    with pytest.raises(BadPicture) as refused:
        photos.read(path, sha256)
    return str(refused.value)


def test_a_regular_file_of_the_folder_is_read(photos, monkeypatch):
    assert photos.read(f"{photos.folder}/a.png", SUM) == b"same bytes everywhere"
    assert photos.read(f"{photos.folder}/./a.png", SUM) == b"same bytes everywhere"


def test_a_folder_named_from_where_one_stands(photos, monkeypatch):
    monkeypatch.chdir(photos.folder.parent)
    with photo_folder(photos.folder.relative_to(photos.folder.parent), 100) as opened:
        assert opened.read("photos/a.png", SUM) == b"same bytes everywhere"
        assert opened.read(f"{photos.folder}/a.png", SUM) == b"same bytes everywhere"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{photos}/link.png", "is a symbolic link; none is followed"),
        ("{photos}/out.png", "is a symbolic link; none is followed"),
        ("{photos}/dangling.png", "is a symbolic link; none is followed"),
        ("{photos}/pipe.png", "is no regular file"),
        ("{photos}/sub", "is no regular file"),
        ("{photos}/empty.png", "is empty"),
        ("{photos}/gone.png", "cannot be read: No such file or directory"),
        ("{photos}/" + "x" * 5000, "cannot be read: File name too long"),
        ("{photos}/sub/d.png", "its path is no file of the photos' folder"),
        ("{photos}/../outside.png", "its path is no file of the photos' folder"),
        ("{photos}/sub/../../outside.png", "its path is no file of the photos' folder"),
        ("{photos}/..", "its path is no file of the photos' folder"),
        ("{photos}/a.png\0", "its path is no file of the photos' folder"),
        ("{photos}", "its path is no file of the photos' folder"),
        ("{outside}", "its path is no file of the photos' folder"),
        ("a.png", "its path is no file of the photos' folder"),
        ("/dev/zero", "its path is no file of the photos' folder"),
        ("", "its path is no file of the photos' folder"),
        ("https://photos.example/a.png", "its path is an address; nothing is fetched"),
        ("file://{photos}/a.png", "its path is an address; nothing is fetched"),
    ],
)
def test_what_is_not_read(photos, path, reason):
    assert reason_of(photos, path.format(photos=photos.folder, outside=photos.folder.parent / "outside.png")) == reason


def test_a_file_must_be_the_one_that_was_ingested(photos):
    changed = "changed since ingest: its sha256 is not the photo table's"
    assert reason_of(photos, f"{photos.folder}/a.png", "0" * 64) == changed
    assert reason_of(photos, f"{photos.folder}/a.png", "no sum\n") == changed
    assert reason_of(photos, f"{photos.folder}/a.png", None) == "the photo table has no sha256 of it"


def test_a_large_file_is_not_read_at_all(photos):
    with (photos.folder / "large.png").open("wb") as file:
        file.truncate(10**12)  # a sparse terabyte
    assert reason_of(photos, f"{photos.folder}/large.png") == (
        "too many bytes: 1,000,000,000,000, describe_photos.max_bytes is 100"
    )


@pytest.mark.parametrize("trap", ["link", "pipe"])
def test_a_file_swapped_between_the_look_and_the_opening(photos, monkeypatch, trap):
    opening = os.open

    def swapped(name, flags, **where):
        (photos.folder / "a.png").unlink()
        if trap == "link":
            (photos.folder / "a.png").symlink_to(photos.folder.parent / "outside.png")
        else:
            os.mkfifo(photos.folder / "a.png")
        return opening(name, flags, **where)

    monkeypatch.setattr(os, "open", swapped)
    reason = reason_of(photos, f"{photos.folder}/a.png")
    assert reason in ("cannot be read: Too many levels of symbolic links", "is no regular file")


def test_the_folder_must_be_there(tmp_path):
    refused = pytest.raises(UserError, match=r"gone: cannot be opened as a folder \(No such file")
    with refused, photo_folder(tmp_path / "gone", 1):
        pass


# -- pictures ---------------------------------------------------------------------------------------------------------


def grey16() -> Image.Image:
    return Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 50)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_mode_becomes_rgb(mode, kind):
    if (kind == "PNG" and mode == "CMYK") or (kind == "JPEG" and mode in ("LA", "P", "RGBA")):
        pytest.skip(f"no {kind} is {mode}")
    picture = noise().convert("RGB").convert("L").convert(mode)
    decoded = decode(saved(picture, kind, lossless=True), MOST)
    assert (decoded.mode, decoded.size) == ("RGB", (40, 30))
    np.testing.assert_allclose(np.asarray(decoded, int), np.asarray(picture.convert("RGB"), int), atol=60)


def test_sixteen_bits_of_grey_are_scaled_not_clipped():
    decoded = np.asarray(decode(saved(grey16()), MOST))
    np.testing.assert_array_equal(decoded[..., 0], np.asarray(grey16()) >> 8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_is_white(kind):
    picture = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 4, 8))
    decoded = decode(saved(picture, kind, lossless=True), MOST)
    assert (decoded.getpixel((7, 0)), decoded.getpixel((0, 0))) == ((255, 255, 255), (0, 0, 255))


def test_a_palette_with_a_transparent_colour():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([9, 9, 9, 200, 0, 0])
    picture.putpixel((0, 0), 0)
    decoded = decode(saved(picture, transparency=1), MOST)
    assert (decoded.getpixel((0, 0)), decoded.getpixel((1, 1))) == ((9, 9, 9), (255, 255, 255))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_stands_upright(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(noise(), kind, exif=exif)
    np.testing.assert_array_equal(
        np.asarray(decode(data, MOST)), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    )


def test_broken_metadata_turns_no_picture():
    data = saved(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert decode(data, MOST).size == (40, 30)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind):
    data = saved(noise(seed=1), kind, save_all=True, append_images=[noise(seed=2)] * 3, lossless=True)
    np.testing.assert_array_equal(np.asarray(decode(data, MOST)), np.asarray(noise(seed=1)))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF"])
def test_other_kinds_of_pictures_are_not_opened(kind):
    with pytest.raises(BadPicture, match=r"^is no picture: expected JPEG, PNG, WEBP$"):
        decode(saved(noise(), kind), MOST)


@pytest.mark.parametrize(
    "data", [b"", b"GET / HTTP/1.1", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8"]
)
def test_no_picture_at_all(data):
    with pytest.raises(BadPicture):
        decode(data, MOST)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_broken(kind):
    data = saved(noise(200, 200), kind)
    for part in (0.99, 0.7, 0.4, 0.1):
        with pytest.raises(BadPicture, match=r"^is (broken|no picture): .+"):
            decode(data[: int(len(data) * part)], MOST)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_whatever_the_bytes_are_it_is_a_picture_or_a_reason_in_one_line(kind):
    chooser = random.Random(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(noise(), kind, exif=exif)
    refused = 0
    for _ in range(300):
        mangled = bytearray(data)
        for _ in range(chooser.randint(1, 5)):
            mangled[chooser.randrange(len(mangled))] = chooser.randrange(256)
        try:
            assert decode(bytes(mangled), MOST).mode == "RGB"
        except BadPicture as error:
            refused += 1
            assert re.fullmatch(r"[^\n]{5,300}", str(error))
    assert refused > 10


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour: 12000 x 12000 pixels are 17 KB."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def webp_header(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_one_pixel_too_many():
    assert decode(saved(noise(40, 30)), 1200).size == (40, 30)
    for refuse in (decode, check_header):
        large = [saved(noise(40, 31), kind) for kind in ("PNG", "JPEG", "WEBP")]
        for data in [*large, saved(noise(400, 300))]:
            with pytest.raises(BadPicture, match=r"^too many pixels: .*describe_photos.max_pixels is 1,200$"):
                refuse(data, 1200)


PEAK = """
import resource, sys
from pipelines.core.photos.pictures import BadPicture, decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in sys.argv[1:]:
    try:
        decode(open(data, "rb").read(), 40_000_000)
        print("decoded")
    except BadPicture as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_costs_no_memory(tmp_path):
    bombs = {"a.png": bomb(12_000, 12_000), "b.webp": webp_header(16_000, 16_000)}
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(500_000_000), 9))  # half a gigabyte of comment
    plain = saved(noise())
    bombs["c.png"] = plain[:33] + text + plain[33:]
    assert len(bombs["a.png"]) < 25_000
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    ended = subprocess.run(
        [sys.executable, "-c", PEAK, *(str(tmp_path / name) for name in sorted(bombs))],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    *fates, peak = ended.stdout.splitlines()
    assert fates[0] == "too many pixels: describe_photos.max_pixels is 40,000,000"
    assert fates[1].startswith("too many pixels: ")
    assert fates[2].startswith("is broken: Decompressed data too large")
    assert int(peak) < 20_000  # KB; decoding the first takes 700,000


def test_what_a_model_is_shown_is_small_and_bare():
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    data = saved(noise(2000, 500), "JPEG", exif=exif, comment=b"SECRET", icc_profile=b"SECRET" * 20)
    assert b"SECRET" in data
    shown = as_jpeg(decode(data, MOST), 1024)
    picture = Image.open(io.BytesIO(shown))
    assert (picture.format, picture.size, b"SECRET" in shown, len(picture.getexif())) == ("JPEG", (1024, 256), False, 0)
    assert Image.open(io.BytesIO(as_jpeg(noise(10, 10), 1024))).size == (10, 10)  # never enlarged
    assert Image.open(io.BytesIO(as_jpeg(Image.new("RGB", (1, 1_000_000)), 1024))).size == (1, 1024)
