"""ResNet50's vectors: of a picture alone, called what they are, and never from a pickle."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipelines.core.errors import UserError
from pipelines.core.photos.image_encoder import ImageEncoder, fingerprint, load_weights, pixels_of, weights_of
from tests.photos.albums import picture

SQUARES = [pixels_of(picture(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def network():
    from torchvision.models import resnet50

    torch.manual_seed(3)
    return resnet50(weights=None).eval()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return ImageEncoder(weights_of("random", 7), 3, tmp_path_factory.mktemp("cache"))


def test_a_vector_has_the_same_bits_whatever_stands_beside_the_picture(encoder):
    torch.set_num_threads(2)
    together = encoder.encode(SQUARES)
    np.testing.assert_array_equal(encoder.encode(SQUARES[::-1])[::-1], together)
    np.testing.assert_array_equal(encoder.encode(SQUARES[1:2])[0], together[1])
    np.testing.assert_array_equal(encoder.encode([SQUARES[0], SQUARES[2]])[1], together[2])
    assert (together.shape, together.dtype) == ((3, 2048), np.float32)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert len({vector.tobytes() for vector in together}) == 3


def test_the_network_sees_one_shape_whatever_there_is(encoder, monkeypatch):
    """On some machines and sizes a batch's shape changes no bit, so the test above may pass without it."""
    network, shapes = encoder._loaded(), []
    monkeypatch.setattr(encoder, "_model", lambda batch: shapes.append(tuple(batch.shape)) or network(batch))
    for count in (1, 2, 3):
        assert encoder.encode(SQUARES[:count]).shape == (count, 2048)
    assert set(shapes) == {(3, 3, 224, 224)}


def test_random_weights_are_the_seeds_and_say_so(encoder, tmp_path):
    torch.manual_seed(99)  # whatever others drew before
    again = ImageEncoder(weights_of("random", 7), 3, tmp_path).encode(SQUARES[:1])
    other = ImageEncoder(weights_of("random", 8), 3, tmp_path).encode(SQUARES[:1])
    first = encoder.encode(SQUARES[:1])
    np.testing.assert_array_equal(again, first)
    assert not np.allclose(other, first)
    assert encoder.weights.source == "resnet50 random seed 7 (says nothing of what is shown)"


def test_loading_draws_nothing_from_others_random_numbers(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ImageEncoder(weights_of("random", 7), 1, tmp_path).encode(SQUARES[:1])
    assert torch.equal(torch.rand(3), expected)


def test_it_is_torchvisions_resnet50(network, tmp_path):
    """The plain way: torchvision's own transform and forward pass up to the last layer."""
    from torchvision.models import ResNet50_Weights

    # timm's file has another last layer here, and no counters
    names = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    file = tmp_path / "mine.safetensors"
    save_file(names | {"fc.weight": torch.zeros(3, 2048), "fc.bias": torch.zeros(3)}, file)
    weights = weights_of(str(file), 7)
    assert weights.source.startswith("resnet50 mine.safetensors (sha256 ")
    large = picture(1, 512).resize((512, 384))
    ours = ImageEncoder(weights, 2, tmp_path).encode([pixels_of(large)])[0]
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        plain = network(ResNet50_Weights.IMAGENET1K_V1.transforms()(large)[None])[0]
    plain = (plain / plain.norm()).numpy()
    np.testing.assert_allclose(ours, plain, atol=1e-3)
    assert ours @ plain > 0.9999


def test_a_picture_is_prepared_as_imagenets_models_want_it():
    from torchvision.transforms.v2 import CenterCrop, Resize

    for size in ((512, 512), (512, 300), (240, 512), (100, 90)):
        whole = picture(1, 512).resize(size)
        plain = np.asarray(CenterCrop(224)(Resize(256)(whole)), float)
        assert np.abs(plain - pixels_of(whole)).mean() < 3  # half a pixel where an edge is rounded
    assert pixels_of(picture(1).resize((1, 50_000))).shape == (224, 224, 3)


def test_the_fingerprint_knows_all_that_decides(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"a")
    (tmp_path / "b.safetensors").write_bytes(b"b")
    made = {
        fingerprint(weights_of(name, seed), batch, device)
        for name, seed, batch, device in [
            ("random", 7, 16, "cpu"),
            ("random", 8, 16, "cpu"),
            ("random", 7, 8, "cpu"),
            ("random", 7, 16, "cuda"),
            (str(tmp_path / "a.safetensors"), 7, 16, "cpu"),
            (str(tmp_path / "b.safetensors"), 7, 16, "cpu"),
        ]
    }
    assert len(made) == 6
    # the seed is of random weights alone
    file = str(tmp_path / "a.safetensors")
    assert fingerprint(weights_of(file, 7), 16, "cpu") == fingerprint(weights_of(file, 8), 16, "cpu")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was opened')",)


def test_pickled_weights_are_never_opened(network, tmp_path):
    file = tmp_path / "resnet50.pth"
    torch.save(Bomb(), file)
    with pytest.raises(UserError, match=r"resnet50.pth is no safetensors file .* \(.pth\) are never opened"):
        load_weights(network, file)


def test_weights_of_another_network_are_refused(network, tmp_path):
    from torchvision.models import resnet18

    save_file(resnet18(weights=None).state_dict(), tmp_path / "r18.safetensors")
    with pytest.raises(UserError, match=r"holds no ResNet50 \(\d+ tensors are missing, unknown or of another shape"):
        load_weights(network, tmp_path / "r18.safetensors")


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_weights_that_see_nothing_are_refused(network, tmp_path, value):
    file = tmp_path / "dead.safetensors"
    save_file({name: torch.full_like(tensor, value) for name, tensor in network.state_dict().items()
               if tensor.is_floating_point()}, file)  # fmt: skip
    with pytest.raises(UserError, match="makes vectors of zeros or infinities"):
        ImageEncoder(weights_of(str(file), 7), 1, tmp_path).encode(SQUARES[:1])


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"'no/such.safetensors' is no file, nor `imagenet` or `random`"):
        weights_of("no/such.safetensors", 7)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as refused:
        weights_of("imagenet", 7)
    message = str(refused.value)
    assert "\n" not in message
    for part in ("'timm/resnet50.tv_in1k' cannot be had", "HF_HUB_OFFLINE=1", "`random`", "a safetensors file"):
        assert part in message


def test_imagenet_comes_from_the_hubs_cache_on_this_machine(network, tmp_path, monkeypatch):
    """A file in the hub's own layout, as a download leaves it."""
    commit = "0" * 40
    model = tmp_path / "models--timm--resnet50.tv_in1k"
    (model / "snapshots" / commit).mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    save_file(network.state_dict(), model / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    weights = weights_of("imagenet", 7)
    assert weights.source.startswith("resnet50 imagenet (timm/resnet50.tv_in1k, sha256 ")
    assert ImageEncoder(weights, 1, tmp_path).encode(SQUARES[:1]).shape == (1, 2048)
