"""The text encoder: one vector a text, whatever stands beside it, computed once."""

import random

import numpy as np
import pyarrow as pa
import pytest

from pipelines.core.encoders import TextEncoder, batches_by_length, fingerprint, resolve
from pipelines.core.errors import UserError
from pipelines.core.vector_cache import VectorCache, key_of_text
from pipelines.embed_reviews import embed_reviews

WORDS = ["the", "soup", "was", "cold", "but", "staff", "friendly", "cheap", "biryani", "great", "never", "again"]


def some_texts(count: int) -> list[str]:
    chooser = random.Random(0)
    return [" ".join(chooser.choices(WORDS, k=chooser.randint(1, 40))) for _ in range(count)]


def test_a_vector_has_the_same_bits_whatever_stands_beside_the_text(tmp_path):
    texts = some_texts(60)
    together = TextEncoder("minilm", 16, tmp_path / "a").encode(texts)
    backwards = TextEncoder("minilm", 16, tmp_path / "b").encode(texts[::-1])[::-1]
    alone = TextEncoder("minilm", 16, tmp_path / "c")
    np.testing.assert_array_equal(together, backwards)
    for text, vector in list(zip(texts, together, strict=True))[:5]:
        np.testing.assert_array_equal(alone.encode([text])[0], vector)
    assert together.shape == (60, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_it_is_the_papers_encoder(tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = some_texts(20)
    plain = SentenceTransformer(str(resolve("minilm")), device="cpu").encode(texts)
    np.testing.assert_allclose(TextEncoder("minilm", 16, tmp_path).encode(texts), plain, atol=2e-6)


def test_each_distinct_text_is_embedded_once_and_kept(tmp_path, capsys):
    texts = some_texts(10)
    encoder = TextEncoder("minilm", 16, tmp_path)
    first = encoder.encode(texts + texts)
    assert "20 texts, 0 distinct ones known, 10 to embed" in capsys.readouterr().out
    again = TextEncoder("minilm", 16, tmp_path)
    np.testing.assert_array_equal(again.encode([*texts, "one new text"])[:10], first[:10])
    assert "11 texts, 10 distinct ones known, 1 to embed" in capsys.readouterr().out
    unused = TextEncoder("minilm", 16, tmp_path)
    unused.encode(texts)
    assert unused._model is None  # all known: the model is not even loaded


def test_the_fingerprint_knows_the_model_and_the_shape(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    before = fingerprint(model, 16)
    assert before == fingerprint(model, 16) != fingerprint(model, 8)
    (model / "config.json").write_text('{"a": 1}')
    assert fingerprint(model, 16) != before


def test_an_unknown_encoder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="'no/such-model' is no folder, and cannot be had"):
        TextEncoder("no/such-model", 16, tmp_path)


def test_blank_texts_have_no_vector(tmp_path):
    reviews = pa.table({"review_id": ["a", "b", "c"], "text": ["", "good soup", " \n "]})
    made = embed_reviews(reviews, TextEncoder("minilm", 16, tmp_path))
    assert made["review_id"].to_pylist() == ["a", "b", "c"]
    lengths = [None if v is None else len(v) for v in made["embedding"].to_pylist()]
    assert lengths == [None, 384, None]


def test_no_texts_at_all(tmp_path):
    reviews = pa.table({"review_id": ["a"], "text": [""]})
    assert embed_reviews(reviews, TextEncoder("minilm", 16, tmp_path))["embedding"].to_pylist() == [None]


def test_batches_by_length():
    made = list(batches_by_length(["a", "b", "c", "d"], [3, 16, 17, 300], 2, 256))
    assert made == [(256, ["d"]), (32, ["c"]), (16, ["a", "b"])]


def test_the_cache_keeps_the_first_vector_and_all_or_none(tmp_path):
    cache = VectorCache(tmp_path, "model")
    key = key_of_text("soup")
    cache.put([(key, np.array([1, 2], np.float32))])
    cache.put([(key, np.array([3, 4], np.float32))])
    np.testing.assert_array_equal(cache.get([key, key_of_text("other")])[key], [1, 2])

    def broken():
        yield key_of_text("x"), np.array([1], np.float32)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cache.put(broken())
    assert cache.get([key_of_text("x")]) == {}
    assert len(cache.get([key_of_text(str(i)) for i in range(2000)] + [key])) == 1
