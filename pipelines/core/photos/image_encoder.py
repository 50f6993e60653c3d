"""Pictures to ResNet50's 2048 features, such that a picture's vector is a function of that picture alone.

As with texts (encoders.py) batches always have one shape, filled up with blank pictures: a vector has the same bits
whatever stands beside its picture (tests/photos/test_image_encoder.py).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.core.checkpoints import hub_file, sha256_of_file
from pipelines.core.errors import UserError
from pipelines.core.photos.pictures import middle_square
from pipelines.core.vector_cache import VectorCache, Vectors

DIMENSION = 2048
SIDE, RESIZED = 224, 256  # pixels: the middle SIDE x SIDE of a picture whose shorter edge is RESIZED
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of the weights' training
# torchvision's own are a pickle; these are the same weights (IMAGENET1K_V1, same names) as safetensors
IMAGENET = ("timm/resnet50.tv_in1k", "model.safetensors")
NEITHER = "`random` needs no file, and says nothing of what is shown; or name a safetensors file of a ResNet50"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Weights:
    """Where ResNet50's weights come from; `source` is how they are called wherever their vectors are shown."""

    source: str
    identity: str
    file: Path | None  # None: random
    seed: int


def weights_of(name: str, seed: int) -> Weights:
    """`imagenet`, `random` or a safetensors file. UserError where a file cannot be had."""
    if name == "random":
        return Weights(f"resnet50 random seed {seed} (says nothing of what is shown)", f"random {seed}", None, seed)
    if name == "imagenet":
        file = hub_file(*IMAGENET, param="describe_photos.image_weights", remedy=NEITHER)
        digest = sha256_of_file(file)
        return Weights(f"resnet50 imagenet ({IMAGENET[0]}, sha256 {digest[:12]})", digest, file, seed)
    file = Path(name)
    if not file.is_file():
        raise UserError(f"describe_photos.image_weights: {name!r} is no file, nor `imagenet` or `random`; mend it")
    digest = sha256_of_file(file)
    return Weights(f"resnet50 {file.name} (sha256 {digest[:12]})", digest, file, seed)


class ImageEncoder:
    """ResNet50 without its last layer, loaded when the first unknown picture comes."""

    def __init__(self, weights: Weights, batch_size: int, cache: Path):
        """`batch_size` is part of a vector's identity. Vectors are kept in `cache` by their file's SHA-256."""
        self.batch_size = batch_size
        self.weights = weights
        self.device = "cuda" if _has_gpu() else "cpu"
        self.cache = VectorCache(cache / "images", fingerprint(weights, batch_size, self.device))
        self._model: Any = None

    def encode(self, squares: Sequence[Pixels]) -> Vectors:
        """Unit vectors (N, 2048) of N <= `batch_size` pictures as `pixels_of` makes them."""
        import torch

        assert 0 < len(squares) <= self.batch_size
        model = self._loaded()
        pixels = np.zeros((self.batch_size, SIDE, SIDE, 3), np.uint8)
        pixels[: len(squares)] = squares
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            # (B, H, W, C) in memory, (B, C, H, W) by name: channels_last, the faster layout
            batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255
            mean, std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (MEAN, STD))
            features = model((batch - mean) / std)["f"][: len(squares)].double()
            norms = features.norm(dim=1, keepdim=True)
            if not bool(torch.isfinite(norms).all()) or not bool((norms > 0).all()):
                raise UserError(
                    f"describe_photos.image_weights: {self.weights.source} makes vectors of zeros or infinities;"
                    " name other weights"
                )
            vectors: Vectors = (features / norms).float().cpu().numpy()
        return vectors

    def _loaded(self) -> Any:
        if self._model is None:
            import torch
            from torchvision.models import resnet50
            from torchvision.models.feature_extraction import create_feature_extractor

            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.weights.seed)
                network = resnet50(weights=None)
            if self.weights.file is not None:
                load_weights(network, self.weights.file)
            extractor = create_feature_extractor(network.eval(), {"flatten": "f"})
            self._model = extractor.to(self.device, memory_format=torch.channels_last)
        return self._model


def pixels_of(picture: Image.Image) -> Pixels:
    """(SIDE, SIDE, 3) of an RGB picture: all that the network sees of it."""
    return np.asarray(middle_square(picture, SIDE, RESIZED), np.uint8)


def load_weights(network: Any, file: Path) -> None:
    """Load a safetensors file whose names are torchvision's (and timm's). UserError where it is another network's.

    The last layer (`fc`) is not used, so it may have any shape, or be missing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given = load_file(file)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"describe_photos.image_weights: {file} is no safetensors file ({reason}); pickled weights (.pth) are"
            " never opened: convert them with safetensors.torch.save_file"
        ) from None
    own = network.state_dict()
    optional = {name for name in own if name.startswith("fc.") or name.endswith("num_batches_tracked")}
    given = {name: tensor for name, tensor in given.items() if not name.startswith("fc.")}
    wrong = sorted(own.keys() - optional - given.keys()) + sorted(given.keys() - own.keys())
    wrong += [name for name in given if name in own and given[name].shape != own[name].shape]
    if wrong:
        raise UserError(
            f"describe_photos.image_weights: {file} holds no ResNet50 ({len(wrong)} tensors are missing, unknown or of"
            f" another shape, first {wrong[0]!r}); name another file"
        )
    network.load_state_dict(given, strict=False)


def fingerprint(weights: Weights, batch_size: int, device: str) -> str:
    """24 hex digits of everything that decides a vector: the weights, how a picture is prepared, the libraries."""
    versions = [f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow")]
    prepared = f"white bilinear middle {SIDE} of {RESIZED} mean {MEAN} std {STD} unit batch {batch_size} on {device}"
    return hashlib.sha256("\n".join(["resnet50", weights.identity, *versions, prepared]).encode()).hexdigest()[:24]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
