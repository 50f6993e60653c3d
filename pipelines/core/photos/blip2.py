"""The provider `blip2`: captions by a BLIP-2 checkpoint on this machine, unprompted and greedy, so deterministic.

As elsewhere a batch always has one shape, filled up with blank pictures: a caption is a function of its picture alone.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.core.checkpoints import hub_folder, sha256_of_file
from pipelines.core.errors import UserError
from pipelines.core.photos.pictures import FORMATS
from pipelines.core.questions import Estimate, Failure, Prompt, Question, Reply

FILES = {".json", ".txt", ".model", ".safetensors"}  # that decide a caption
UNPROMPTED = Prompt("unprompted", 1, "")
MOST_TOKENS = 40  # of a caption
GENERATION = {"do_sample": False, "num_beams": 1, "max_new_tokens": MOST_TOKENS}


class Blip2Provider:
    """Loaded when the first question comes that the ledger cannot answer."""

    name = "blip2"
    kept_together = 1  # a caption takes longer than a transaction

    def __init__(self, checkpoint: str, batch_size: int):
        """`checkpoint`: a folder, or a name on the model hub. UserError where it cannot be had."""
        self.batch_size = batch_size
        self.folder = hub_folder(
            checkpoint,
            param="describe_photos.checkpoint",
            remedy="name a folder that holds a BLIP-2 checkpoint, or set describe_photos.captions to dataset",
        )
        # a folder's own name: where it lies is nobody's business, and the sum says which weights they are
        self.model_name = Path(checkpoint).name if Path(checkpoint).is_dir() else checkpoint

    @cached_property
    def fingerprint(self) -> str:
        """24 hex digits of the checkpoint's files."""
        files = sorted(path for path in self.folder.rglob("*") if path.suffix in FILES)
        lines = [f"{path.relative_to(self.folder)} {sha256_of_file(path)}" for path in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]

    @cached_property
    def _on(self) -> tuple[str, str]:
        """Device, and the type of its numbers."""
        import torch

        if not torch.cuda.is_available():
            return "cpu", "float32"
        return "cuda", "bfloat16" if torch.cuda.is_bf16_supported() else "float16"

    @cached_property
    def _versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("torch", "transformers")}

    def identity(self, question: Question) -> dict[str, Any]:
        """The picture, the weights, how they are run; the prompt is no part of it: BLIP-2 is shown none."""
        assert question.image is not None
        device, numbers = self._on
        return {
            "provider": self.name,
            "task": question.task,
            "checkpoint": self.fingerprint,
            "generation": GENERATION,
            "batch": self.batch_size,
            "numbers": f"{numbers} on {device}",
            "versions": self._versions,
            "image": hashlib.sha256(question.image).hexdigest(),
        }

    def fits(self, question: Question) -> bool:
        return True

    def estimate(self, question: Question) -> Estimate:
        return Estimate(0, 0)  # nothing is paid

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
        """Captions, `batch_size` pictures at a time."""
        for start in range(0, len(questions), self.batch_size):
            some = questions[start : start + self.batch_size]
            for offset, reply in enumerate(self._caption([question.image for question in some])):
                yield start + offset, reply

    def _caption(self, images: Sequence[bytes | None]) -> list[Reply]:
        import torch

        model, processor = self._loaded
        pictures = [
            Image.open(io.BytesIO(image), formats=FORMATS).convert("RGB") for image in images if image is not None
        ]
        assert len(pictures) == len(images)
        blank = Image.new("RGB", (64, 64))
        pictures += [blank] * (self.batch_size - len(pictures))
        device, numbers = self._on
        # pictures already: the processor would fetch a text that looks like an address
        pixels = processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            made = model.generate(pixel_values=pixels.to(device, getattr(torch, numbers)), **GENERATION)
        texts = processor.tokenizer.batch_decode(made[: len(images)], skip_special_tokens=True)
        # a caption cut at our own bound is still one, and would be cut again: none is "length"
        return [Reply(text, "stop", {}, self.model_name, {"text": text}) for text in texts]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from transformers import Blip2ForConditionalGeneration, Blip2Processor
        from transformers.utils import logging

        device, numbers = self._on
        logging.disable_progress_bar()
        try:
            processor = Blip2Processor.from_pretrained(self.folder, local_files_only=True)
            model: Any = Blip2ForConditionalGeneration.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, dtype=getattr(torch, numbers)
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"describe_photos.checkpoint: {self.model_name} is no BLIP-2 checkpoint in safetensors ({reason});"
                " name another"
            ) from None
        return model.to(device).eval(), processor
