"""The stage: every photo described or rejected with a reason, once, and nothing of strangers' followed or fetched."""

import base64
import io
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from pipelines.core.encoders import TextEncoder
from pipelines.core.errors import CheckFailed, UserError
from pipelines.core.ledger import Ledger
from pipelines.core.photos.image_encoder import ImageEncoder, pixels_of, weights_of
from pipelines.core.photos.pictures import decode
from pipelines.core.questions import Plan
from pipelines.describe_photos import one_line, plan_captions
from tests.llm.server import Response, Server, completion
from tests.params import ROOT, params_with
from tests.photos.albums import Album, png
from tests.photos.test_pictures import bomb
from tests.photos.tiny_blip2 import save_tiny_blip2

NOTHING = ["caption", "caption_source", "call", "caption_embedding", "image_source", "image_embedding"]


@pytest.fixture
def album(tmp_path):
    return Album(tmp_path)


@pytest.fixture(scope="module")
def networks():
    return {}


@pytest.fixture(autouse=True)
def _networks_are_built_once(monkeypatch, networks):
    build = ImageEncoder._loaded

    def loaded(encoder):
        if encoder.weights.identity not in networks:
            networks[encoder.weights.identity] = build(encoder)
        return networks[encoder.weights.identity]

    monkeypatch.setattr(ImageEncoder, "_loaded", loaded)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save_tiny_blip2(tmp_path_factory.mktemp("blip2") / "tiny"))


def test_good_and_bad_photos_with_their_own_captions(album, capsys):
    (album.root / "outside.png").write_bytes(png(9))
    album.add("good", png(1), " A bowl\n of\tsoup\x1b[31m ")
    album.add("mistyped", png(2), suffix="jpg")  # a PNG all the same
    album.add("no-file", None, "Only told")
    album.add("nothing")
    album.add("truncated", png(3)[:-300], "Half a cake")
    album.add("text", b"<html>404</html>", suffix="jpg")
    album.add("bomb", bomb(12_000, 12_000))
    album.add("large", png(4) + bytes(3_000_000))
    album.add("changed", png(5)).write_bytes(png(6))
    album.add("gone", png(7)).unlink()
    link = album.add("link", png(9))
    link.unlink()
    link.symlink_to(album.root / "outside.png")
    album.row("outside", str(album.root / "outside.png"), data=png(9))
    album.row("above", f"{album.folder}/../outside.png", data=png(9))
    described, rejects = album.describe(describe_photos__max_bytes=2_000_000)
    assert rejects == {
        "truncated": rejects["truncated"],
        "text": "is no picture: expected JPEG, PNG, WEBP",
        "bomb": "too many pixels: describe_photos.max_pixels is 40,000,000",
        "large": f"too many bytes: {len(png(4)) + 3_000_000:,}, describe_photos.max_bytes is 2,000,000",
        "changed": "changed since ingest: its sha256 is not the photo table's",
        "gone": "cannot be read: No such file or directory",
        "link": "is a symbolic link; none is followed",
        "outside": "its path is no file of the photos' folder",
        "above": "its path is no file of the photos' folder",
    }
    assert rejects["truncated"].startswith("is broken: ")
    captions = {photo: row["caption"] for photo, row in described.items() if row["caption"] is not None}
    assert captions == {"good": "A bowl of soup[31m", "no-file": "Only told", "truncated": "Half a cake"}
    source = "resnet50 random seed 7 (says nothing of what is shown)"
    for photo, row in described.items():
        assert row["caption_source"] == ("dataset" if photo in captions else None)
        assert (row["caption_embedding"] is not None) == (photo in captions)
        seen = photo in ("good", "mistyped")
        assert (row["image_source"], row["image_embedding"] is not None) == (source if seen else None, seen)
        assert row["call"] is None
    assert all(described["nothing"][name] is None for name in NOTHING)
    for name, size in (("caption_embedding", 384), ("image_embedding", 2048)):
        vector = np.array(described["good"][name])
        assert len(vector) == size and abs(np.linalg.norm(vector) - 1) < 1e-6
    encoder = TextEncoder("minilm", 16, album.root / "cache")
    np.testing.assert_array_equal(encoder.encode(["Only told"])[0], described["no-file"]["caption_embedding"])
    out = capsys.readouterr().out
    assert "13 photos, 11 with a file: 2 distinct pictures (2 new), 3 photos with a caption, 9 rejects" in out
    assert "  1 x too many bytes\n" in out and "  2 x its path is no file of the photos' folder\n" in out


def test_no_photos_at_all(album):
    assert album.describe() == ({}, {})
    assert not list(album.out.parent.glob(".*"))


def test_a_picture_is_described_once_whatever_its_ids(album, capsys):
    for photo_id in ("a", "b", "c"):
        album.add(photo_id, png(1))
    album.add("d", png(2))
    described, _ = album.describe()
    assert "4 photos, 4 with a file: 2 distinct pictures (2 new)" in capsys.readouterr().out
    vectors = [described[photo]["image_embedding"] for photo in "abcd"]
    assert vectors[0] == vectors[1] == vectors[2] != vectors[3]
    first = album.out.read_bytes()
    album.add("e", png(3))
    again, _ = album.describe()
    assert "3 distinct pictures (1 new)" in capsys.readouterr().out
    # bit by bit what the first run made, though another picture stood beside them; and what one alone makes
    assert [again[photo]["image_embedding"] for photo in "abcd"] == vectors
    album.rows.pop()
    album.describe()
    assert album.out.read_bytes() == first
    alone = ImageEncoder(weights_of("random", 7), 2, album.root / "other").encode([pixels_of(decode(png(2), 10**6))])
    np.testing.assert_array_equal(alone[0], described["d"]["image_embedding"])


def test_a_limit_lowered_later_counts(album):
    album.add("a", png(1))
    assert album.describe()[1] == {}
    described, rejects = album.describe(describe_photos__max_pixels=64 * 64 - 1)
    assert rejects == {"a": "too many pixels: describe_photos.max_pixels is 4,095"}
    assert described["a"]["image_embedding"] is None


def test_other_weights_make_other_vectors_and_are_named(album):
    album.add("a", png(1))
    seven, _ = album.describe()
    eight, _ = album.describe(describe_photos__seed=8)
    assert seven["a"]["image_embedding"] != eight["a"]["image_embedding"]
    assert eight["a"]["image_source"] == "resnet50 random seed 8 (says nothing of what is shown)"


def test_an_address_in_the_data_is_never_asked(album, checkpoint):
    with Server() as server:
        url = server.url.removesuffix("/v1")
        album.row(f"{url}/id.png", f"{url}/path.png", f"see {url}/caption.png", png(1))
        album.row("b", f"file://{album.folder}/a.png", data=png(1))
        album.add("a", png(1), f"{url}/caption.png")
        album.add("c", f"{url}/content.png".encode(), suffix="jpg")  # transformers' own loader would fetch it
        for captions in ("dataset", "blip2"):
            settings = {"describe_photos__captions": captions, "describe_photos__checkpoint": checkpoint}
            described, rejects = album.describe(**settings)
            address = "its path is an address; nothing is fetched"
            assert rejects == {f"{url}/id.png": address, "b": address, "c": "is no picture: expected JPEG, PNG, WEBP"}
            assert described["a"]["image_embedding"] is not None
        assert server.requests == []


def test_blip2_captions_through_the_ledger(album, checkpoint, capsys):
    for photo_id, seed in {"a": 1, "b": 1, "c": 2, "d": 3}.items():
        album.add(photo_id, png(seed), "the dataset's own")
    album.add("e", None, "the dataset's own")
    album.add("f", b"broken", "the dataset's own")
    settings = {"describe_photos__captions": "blip2", "describe_photos__checkpoint": checkpoint}
    described, rejects = album.describe(**settings, describe_photos__caption_batch=2)
    assert list(rejects) == ["f"]
    assert "3 asked" in capsys.readouterr().err
    assert [described[photo]["caption_source"] for photo in "abcdef"] == ["tiny"] * 4 + ["dataset", None]
    captions = [described[photo]["caption"] for photo in "abcd"]
    assert captions[0] == captions[1] and len(set(captions)) == 3
    ledger = Ledger(album.root / "cache" / "llm" / "ledger.sqlite")
    for photo in "abcd":
        entry = ledger.entry(described[photo]["call"])
        assert (one_line(entry.text), entry.provider) == (described[photo]["caption"], "blip2")
        assert (entry.prompt, entry.dollars) == ("unprompted/1", 0)
    first = album.out.read_bytes()
    album.describe(**settings, describe_photos__caption_batch=2)
    assert "3 answers known, 0 asked" in capsys.readouterr().err
    assert album.out.read_bytes() == first


def shown(body) -> Image.Image:
    """The picture in a chat request."""
    url = body["messages"][-1]["content"][-1]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))


def sees(body, number) -> Response:
    """An answer that could only come of the picture itself."""
    picture = shown(body)
    colour = "-".join(str(value) for value in np.asarray(picture).mean(axis=(0, 1)).round().astype(int))
    return Response(body=completion(f'"Colour {colour},\n{picture.width} wide."', body=body))


def openai(server: Server, **more) -> dict:
    return {"describe_photos__captions": "openai", "llm__base_url": server.url, "llm__attempts": 1} | more


def large() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (3000, 1500), (9, 99, 199)).save(written, "JPEG", comment=b"CANARY", exif=b"Exif\0\0CANARY")
    return written.getvalue()


def test_openai_sees_each_picture_once_small_and_bare(album, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    for photo_id, seed in {"a": 1, "b": 1, "c": 2}.items():
        album.add(photo_id, png(seed), "the dataset's own")
    album.add("d", large(), suffix="jpg")
    album.add("e", b"broken")
    with Server(sees) as server:
        album.write()
        params = params_with(album.root, **openai(server), **album.settings())
        plan = plan_captions(album.table, album.folder, params)
        assert (plan.calls, plan.known, server.requests) == (3, 0, [])
        described, rejects = album.describe(**openai(server))
        assert list(rejects) == ["e"]
        assert len(server.chats) == 3
        assert re.fullmatch('"Colour (8|9|10)-(98|99)-(198|199), 1024 wide."', described["d"]["caption"])
        assert all(
            b"CANARY" not in base64.b64decode(re.sub("^.*,", "", picture_url(chat.body))) for chat in server.chats
        )
        colour = np.asarray(shown(next(chat.body for chat in server.chats if shown(chat.body).width == 64))).mean(
            axis=(0, 1)
        )
        assert described["a"]["caption"] == described["b"]["caption"] != described["c"]["caption"]
        assert any(str(round(colour[0])) in described[photo]["caption"] for photo in "ac")
        assert {described[photo]["caption_source"] for photo in "abcd"} == {"real-name"}
        album.describe(**openai(server))
        assert len(server.chats) == 3
        assert plan_captions(album.table, album.folder, params) == Plan(3, 3, 0, 0)


def picture_url(body) -> str:
    return body["messages"][-1]["content"][-1]["image_url"]["url"]


def test_a_caption_that_does_not_come(album, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    for photo_id in ("a", "b", "c", "d"):
        album.add(photo_id, png(1 if photo_id == "b" else ord(photo_id)))
    bad = {"on": True}

    def respond(body, number) -> Response:
        refuse = bad["on"] and np.array_equal(np.asarray(shown(body)), jpeg_of(1))
        return Response(body=completion(" ... ", body=body)) if refuse else sees(body, number)

    with Server(respond) as server:
        with pytest.raises(CheckFailed) as stopped:
            album.describe(**openai(server))
        assert re.fullmatch(
            r"captions: 1 of 4 pictures have none, 1 because: .+; more than llm.failed_share \(0.0\) allows. .+",
            str(stopped.value),
        )
        assert not album.out.exists() and not album.rejects.exists()
        before = len(server.chats)
        described, rejects = album.describe(**openai(server), llm__failed_share=0.25)
        assert len(server.chats) == before + 1  # the one alone
        assert rejects == {"b": "no caption: an answer without a word"}
        assert described["b"]["caption"] is None and described["b"]["image_embedding"] is not None
        bad["on"] = False
        described, rejects = album.describe(**openai(server))
        assert rejects == {} and described["b"]["caption"].startswith('"Colour')
        assert len(server.chats) == before + 2


def jpeg_of(seed: int) -> np.ndarray:
    from pipelines.core.photos.pictures import as_jpeg

    return np.asarray(Image.open(io.BytesIO(as_jpeg(decode(png(seed), 10**6), 1024))))


def test_outputs_appear_whole_or_not_at_all(album, monkeypatch):
    album.add("a", png(1), "soup")
    album.describe()
    before = album.out.read_bytes(), album.rejects.read_bytes()
    album.add("b", b"broken", "cake")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TextEncoder, "encode", full)
        with pytest.raises(OSError, match="No space left"):
            album.describe()
    assert (album.out.read_bytes(), album.rejects.read_bytes()) == before
    assert len(list(album.out.parent.iterdir())) == 2
    assert list(album.describe()[1]) == ["b"]


def vectors_kept(album: Album) -> int:
    kept = 0
    for path in (album.root / "cache" / "images").glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'vectors'").fetchone()[0]
            kept += connection.execute("SELECT count(*) FROM vectors").fetchone()[0] if tables else 0
    return kept


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(album, capsys):
    for seed in range(24):
        album.add(f"p{seed:02}", png(seed))
    running = subprocess.Popen(album.command(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while vectors_kept(album) < 2 and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = vectors_kept(album)
    assert 2 <= kept < 24
    assert not album.out.exists()
    described, _ = album.describe()
    assert f"24 distinct pictures ({24 - kept} new)" in capsys.readouterr().out
    assert len({tuple(row["image_embedding"]) for row in described.values()}) == 24


def test_the_command_line_says_what_is_wrong_in_one_line(album):
    album.add("a", png(1))
    command = album.command(describe_photos__image_weights="no/such.safetensors")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: describe_photos.image_weights: 'no/such.safetensors' is no file, nor `imagenet` or `random`; mend it\n"
    )
    album.folder.rename(album.root / "moved")
    with pytest.raises(UserError, match=r"photos: cannot be opened as a folder .* set `ingest.photos`"):
        album.describe()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  a \r\n b\u2028c\u00a0d ", "a b c d"),
        ("\x00\x07soup\x1b[0m\u202egnp\u200b", "soup[0mgnp"),
        ("", ""),
        ("word " * 100, ("word " * 60).strip()),
        ("x" * 1000, "x" * 300),
        ("寿司とラーメン", "寿司とラーメン"),
    ],
)
def test_captions_are_one_bounded_line(text, line):
    assert one_line(text) == line
