"""The captioner BLIP-2, through a small checkpoint on the disk."""

import hashlib
import json

import pytest
import torch

from pipelines.core.errors import UserError
from pipelines.core.photos.blip2 import UNPROMPTED, Blip2Provider
from pipelines.core.photos.pictures import as_jpeg
from pipelines.core.questions import Question, key_of
from tests.photos.albums import picture
from tests.photos.tiny_blip2 import save_tiny_blip2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_blip2(tmp_path_factory.mktemp("blip2") / "tiny")


def question(seed: int) -> Question:
    return Question(task="caption", prompt=UNPROMPTED, image=as_jpeg(picture(seed), 1024))


QUESTIONS = [question(seed) for seed in range(5)]


def texts(provider: Blip2Provider, questions: list[Question]) -> list[str]:
    replies = dict(provider.answer(questions))
    return [replies[index].text for index in range(len(questions))]


def test_a_batch_is_the_singles(checkpoint):
    provider = Blip2Provider(str(checkpoint), 5)
    together = texts(provider, QUESTIONS)
    assert together == [texts(provider, [one])[0] for one in QUESTIONS]
    assert together == texts(provider, QUESTIONS[::-1])[::-1]
    assert len(set(together)) == 5  # random weights, but weights that look
    assert all(together)


def test_the_model_sees_one_shape_whatever_there_is(checkpoint, monkeypatch):
    provider, shapes = Blip2Provider(str(checkpoint), 2), []
    model = provider._loaded[0]
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda pixel_values, **how: shapes.append(len(pixel_values)) or generate(pixel_values, **how)
    )
    assert len(texts(provider, QUESTIONS)) == 5
    assert shapes == [2, 2, 2]


def test_batches_of_another_size_say_the_same(checkpoint):
    expected = texts(Blip2Provider(str(checkpoint), 5), QUESTIONS)
    for size in (1, 2, 8):
        assert texts(Blip2Provider(str(checkpoint), size), QUESTIONS) == expected


def test_it_says_what_the_plain_way_says(checkpoint):
    """The way of transformers' own documentation: one picture, processor, generate, decode."""
    import io

    from PIL import Image
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    processor = Blip2Processor.from_pretrained(checkpoint)
    model = Blip2ForConditionalGeneration.from_pretrained(checkpoint).eval()
    shown = Image.open(io.BytesIO(QUESTIONS[0].image))
    made = model.generate(**processor(images=shown, return_tensors="pt"), max_new_tokens=40, do_sample=False)
    plain = processor.batch_decode(made, skip_special_tokens=True)[0]
    assert texts(Blip2Provider(str(checkpoint), 3), QUESTIONS[:1]) == [plain]


def test_the_key_knows_all_that_decides(checkpoint, tmp_path):
    provider = Blip2Provider(str(checkpoint), 5)
    identity = provider.identity(QUESTIONS[0])
    assert identity["image"] == hashlib.sha256(QUESTIONS[0].image).hexdigest()
    assert identity["generation"] == {"do_sample": False, "num_beams": 1, "max_new_tokens": 40}
    assert (identity["numbers"], identity["versions"]["torch"]) == ("float32 on cpu", torch.__version__.split("+")[0])
    assert str(checkpoint) not in json.dumps(identity)
    other = Blip2Provider(str(save_tiny_blip2(tmp_path / "other", seed=1)), 5)
    same = Blip2Provider(str(save_tiny_blip2(tmp_path / "elsewhere")), 5)
    keys = {key_of(provider, one) for one in QUESTIONS}
    assert len(keys) == 5
    assert key_of(same, QUESTIONS[0]) in keys
    for changed in (other, Blip2Provider(str(checkpoint), 4)):
        assert key_of(changed, QUESTIONS[0]) not in keys


def test_nothing_is_loaded_to_know_a_key(checkpoint):
    provider = Blip2Provider(str(checkpoint), 5)
    provider.identity(QUESTIONS[0])
    assert "_loaded" not in vars(provider)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was opened')",)


def test_pickled_weights_are_never_opened(tmp_path):
    folder = save_tiny_blip2(tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled is no BLIP-2 checkpoint in safetensors"):
        texts(Blip2Provider(str(folder), 1), QUESTIONS[:1])


def test_a_checkpoint_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said = r"^describe_photos.checkpoint: 'no/model' is no folder, and cannot be had .* to dataset$"
    with pytest.raises(UserError, match=said):
        Blip2Provider("no/model", 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty is no BLIP-2 checkpoint"):
        texts(Blip2Provider(str(tmp_path / "empty"), 1), QUESTIONS[:1])
