"""Weights from the model hub: safetensors and texts alone, never a pickle."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pipelines.core.errors import UserError

HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def hub_file(name: str, file: str, *, param: str, remedy: str) -> Path:
    """One file of the hub's model `name`, from the hub's cache on this machine or from the hub. UserError else."""
    from huggingface_hub import hf_hub_download

    return _from_hub(lambda: hf_hub_download(name, file), f"{name!r}", param, remedy)


def hub_folder(name: str, *, param: str, remedy: str) -> Path:
    """`name` itself where it is a folder, else the folder of the hub's model. UserError where there is neither."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    what = f"{name!r} is no folder, and"
    return _from_hub(lambda: snapshot_download(name, allow_patterns=HUB_FILES), what, param, remedy)


def _from_hub(get: Callable[[], str], what: str, param: str, remedy: str) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(get())
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"{param}: {what} cannot be had from the model hub ({type(error).__name__}; HF_HUB_OFFLINE=1 keeps to"
            f" what is on this machine); {remedy}"
        ) from None


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
