"""Photos are looked up among the folder's own regular files; no id leads out of it."""

import hashlib

import pytest

from pipelines.core.errors import UserError
from pipelines.formats.photo_files import list_photos, sha256_of
from tests.formats.running import lines, run


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    (tmp_path / "outside.jpg").write_bytes(b"secret")
    (photos / "a.jpg").write_bytes(b"A")
    (photos / "b.PNG").write_bytes(b"B")
    (photos / "c.txt").write_bytes(b"C")
    (photos / "sub" / "d.jpg").write_bytes(b"D")
    (photos / "e.jpg").symlink_to(tmp_path / "outside.jpg")
    (photos / "f.jpg").symlink_to(photos / "a.jpg")
    return photos


@pytest.mark.parametrize(
    ("photo_id", "name"),
    [
        ("a", "a.jpg"),
        ("a.jpg", "a.jpg"),
        ("b", "b.PNG"),
        ("c", None),
        ("c.txt", None),
        ("d", None),
        ("sub/d", None),
        ("e", None),
        ("f", None),
        ("../outside", None),
        ("../outside.jpg", None),
        ("./a.jpg", None),
        ("a.jpg\x00", None),
        ("", None),
        (".", None),
        ("..", None),
        ("x" * 5000, None),
    ],
)
def test_which_file_a_photo_id_names(folder, photo_id, name):
    path = list_photos(folder).path_of(photo_id)
    assert path == (None if name is None else folder / name)


def test_a_symlink_put_in_place_of_a_file_is_not_followed(folder):
    path = list_photos(folder).path_of("a")
    path.unlink()
    path.symlink_to(folder.parent / "outside.jpg")
    with pytest.raises(OSError, match="symbolic links"):
        sha256_of(path)


def test_photos_in_the_table(tmp_path, folder):
    urls = [{"url": [f"https://photos.example/p/{name}=w150"]} for name in ("a", "e", "outside", "gone")]
    review = {"user_id": "u", "gmap_id": "b", "time": 1, "rating": 5, "text": "t", "pics": urls}
    lines(folder / "photos.jsonl", {"photo_id": "a", "caption": "A soup"}, {"photo_id": "z", "caption": "nobody's"})
    found = run(tmp_path, "google_local", lines(tmp_path / "raw.jsonl", review), photos=folder)
    review_id = found.reviews[0]["review_id"]
    common = {"review_id": review_id, "business_id": "b"}
    nothing = {"path": None, "sha256": None, "caption": None}
    digest = hashlib.sha256(b"A").hexdigest()
    assert found.photos == [
        {"photo_id": "a", "path": f"{folder}/a.jpg", "sha256": digest, "caption": "A soup"} | common,
        {"photo_id": "e"} | nothing | common,
        {"photo_id": "gone"} | nothing | common,
        {"photo_id": "outside"} | nothing | common,
    ]
    assert (found.report["photos"], found.report["photo_files"], found.report["captions"]) == (4, 1, 1)


def test_a_sources_own_caption_goes_before_the_sidecars(tmp_path, folder):
    raw = tmp_path / "raw"
    lines(
        raw / "reviews.json", {"review_id": "r", "user_id": "u", "business_id": "b", "stars": 5, "date": "2019-01-01"}
    )
    lines(
        raw / "photos.json",
        {"photo_id": "a", "business_id": "b", "caption": "own"},
        {"photo_id": "b", "business_id": "b"},
    )
    lines(folder / "photos.jsonl", {"photo_id": "a", "caption": "side"}, {"photo_id": "b", "caption": "side"})
    found = run(tmp_path, "yelp", raw, photos=folder)
    assert [photo["caption"] for photo in found.photos] == ["own", "side"]


@pytest.mark.parametrize("line", ["{broken", '{"caption": "no id"}', '{"photo_id": 7, "caption": "x"}'])
def test_a_broken_sidecar_names_its_line(folder, line):
    lines(folder / "photos.jsonl", {"photo_id": "a", "caption": "A"}, line)
    with pytest.raises(UserError) as refused:
        list_photos(folder)
    assert str(refused.value) == (
        f'{folder}/photos.jsonl: line 2: expected {{"photo_id": "…", "caption": "…"}}; mend or remove it'
    )
