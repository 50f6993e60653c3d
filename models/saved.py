"""Weights on disk: safetensors, and beside the tensors what they mean. No pickle anywhere."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

# One key for everything: safetensors writes its metadata in a hash map's order, so two keys would give two files.
KEY = "mmrec"
REQUIRED = {"kind", "feature_service", "params", "fingerprint", "encoding"}
DIGEST = "sha256"


class UnusableWeights(ValueError):
    """The file is none of ours, or another one than was asked for: one line says which."""


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write `tensors` with `about` (JSON), which says at least what `REQUIRED` names. Same input, same bytes.

    kind: `reducer` or `model`; feature_service: Feast's, that the features came through; params: what it was made with;
    fingerprint: of the training set; encoding: the preprocessing's constants. Kept with them is the sum of it all: a
    cache that hands out a damaged file says nothing of it, and damaged weights still rank.
    """
    missing = REQUIRED - set(about)
    assert not missing, f"weights must say {sorted(missing)}"
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    told = {name: value for name, value in about.items() if name != DIGEST}
    save_file(whole, path, metadata={KEY: json_of({**told, DIGEST: digest(whole, told)})})


def json_of(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, allow_nan=False)


def digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """sha256 over what the file says of itself, and every tensor by name, type, shape and bytes."""
    made = hashlib.sha256(json_of(about).encode())
    for name in sorted(tensors):
        made.update(f"\n{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        made.update(tensors[name].numpy().tobytes())
    return made.hexdigest()


def load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `about`, its digest among it. UnusableWeights where the file is missing, broken, or not of `kind`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise UnusableWeights(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise UnusableWeights(f"{path}: not a safetensors file ({error})") from None
    if KEY not in metadata:
        raise UnusableWeights(f"{path}: weights without `{KEY}` metadata, so not made here")
    about = json.loads(metadata[KEY])
    missing = sorted({*REQUIRED, DIGEST} - set(about))
    if missing:
        raise UnusableWeights(f"{path}: its metadata lacks {missing}")
    if about["kind"] != kind:
        raise UnusableWeights(f"{path}: holds a `{about['kind']}`, wanted a `{kind}`")
    told = {name: value for name, value in about.items() if name != DIGEST}
    if digest(tensors, told) != about[DIGEST]:
        raise UnusableWeights(f"{path}: damaged: its weights are not those that were saved in it")
    return tensors, about


def fill(network: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put `tensors` into `network`; UnusableWeights where names or shapes differ."""
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise UnusableWeights(
            f"{path}: its weights do not fit its own description ({' '.join(str(error).split())})"
        ) from None


@contextmanager
def described(path: Path) -> Iterator[None]:
    """UnusableWeights where what the file says of itself is not what this version writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UnusableWeights(
            f"{path}: another version made it ({type(error).__name__} in its description: {error})"
        ) from None
