"""Each photo to a caption and to vectors of both, each distinct picture once.

Photos and their table come from strangers: what is wrong with one is a row of the rejects and stops nothing, no path
leads out of the photos' folder, no address is fetched. Pictures are never in memory together: vectors wait in the
cache, answers in the ledger, and an interrupted run goes on where it was.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipelines.core.command import run_stage
from pipelines.core.encoders import TextEncoder
from pipelines.core.errors import CheckFailed
from pipelines.core.llm import Door
from pipelines.core.params import Params
from pipelines.core.photos.image_encoder import DIMENSION, ImageEncoder, Pixels, pixels_of, weights_of
from pipelines.core.photos.pictures import BadPicture, PhotoFolder, as_jpeg, check_header, decode, photo_folder
from pipelines.core.progress import progress
from pipelines.core.providers import ledger_of
from pipelines.core.questions import (
    Answer,
    Failed,
    Plan,
    Prompt,
    Question,
    UnusableAnswer,
    load_prompt,
    printable_line,
)
from pipelines.core.tables import (
    DESCRIPTIONS,
    PHOTO_REJECTS,
    PHOTOS,
    parquet_writer,
    read_table,
    vector_column,
    whole_file,
    write_table,
)

COLUMNS = ["photo_id", "path", "caption", "sha256"]
LONGEST = 1024  # pixels of the longer edge of what a captioner is shown
CAPTION_LENGTH = 300  # characters
CAPTION_TOKENS = 100  # of a model's answer
ASKED, ASKED_BY_BATCH = 256, 1_000  # pictures whose bytes are in memory together while a captioner looks at them
ROWS = 2_000  # photos whose vectors are in memory together

Item = TypeVar("Item")


@dataclass(frozen=True)
class Photo:
    photo_id: str
    path: str | None
    caption: str | None  # the dataset's own
    sha256: str | None


@dataclass
class Seen:
    """What came of looking at all photos."""

    pictures: dict[str, str]  # sha256 -> path, of pictures that have a vector
    rejects: dict[str, str]  # photo id -> reason why it has none
    new: int  # pictures whose vector was not known before


@dataclass(frozen=True)
class Caption:
    text: str
    source: str
    call: str | None = None


def photos_of(table: pa.Table) -> list[Photo]:
    """By photo id, with their own captions cleaned."""
    rows = table.select(COLUMNS).sort_by("photo_id").to_pylist()
    return [Photo(row["photo_id"], row["path"], one_line(row["caption"] or "") or None, row["sha256"]) for row in rows]


def one_line(text: str) -> str:
    """`text` as one printable line, cut at a word."""
    line = printable_line(text)
    if len(line) <= CAPTION_LENGTH:
        return line
    words = line[: CAPTION_LENGTH + 1].rsplit(" ", 1)[0]
    return words[:CAPTION_LENGTH]


def usable_caption(answer: str) -> str:
    """A model's answer as a caption. UnusableAnswer where nothing is in it."""
    line = one_line(answer)
    if not any(letter.isalnum() for letter in line):
        raise UnusableAnswer("an answer without a word")
    return line


class Looking:
    """One pass over the photos that puts the vector of every picture into the encoder's cache.

    Every file is read and its sum compared in every run; each distinct content is decoded once, in the first of them.
    """

    def __init__(self, folder: PhotoFolder, encoder: ImageEncoder, max_pixels: int):
        self.folder = folder
        self.encoder = encoder
        self.max_pixels = max_pixels
        self.seen = Seen({}, {}, 0)
        self._fates: dict[str, str | None] = {}  # content -> what is wrong with it
        self._waiting: dict[str, Pixels] = {}  # content -> what the network will see of it

    def look(self, photos: Sequence[Photo]) -> Seen:
        with progress(len(photos), f"looking at photos ({self.encoder.weights.source})", "photo") as bar:
            for some in slices(photos, ROWS):
                known = set(self.encoder.cache.get([key_of(photo.sha256) for photo in some if photo.sha256]))
                for photo in some:
                    if photo.path is not None:
                        self._look_at(photo, photo.path, known)
                    bar.update()
            self._keep()
        return self.seen

    def _look_at(self, photo: Photo, path: str, known: set[bytes]) -> None:
        try:
            data = self.folder.read(path, photo.sha256)
        except BadPicture as error:
            self.seen.rejects[photo.photo_id] = str(error)
            return
        content = str(photo.sha256)
        if content not in self._fates:
            self._fates[content] = self._fate_of(content, data, key_of(content) in known)
            if self._fates[content] is None:
                self.seen.pictures[content] = path
        if (reason := self._fates[content]) is not None:
            self.seen.rejects[photo.photo_id] = reason

    def _fate_of(self, content: str, data: bytes, known: bool) -> str | None:
        try:
            if known:  # decoded before, but the limits may have changed since
                check_header(data, self.max_pixels)
                return None
            self._waiting[content] = pixels_of(decode(data, self.max_pixels))
        except BadPicture as error:
            return str(error)
        if len(self._waiting) == self.encoder.batch_size:
            self._keep()
        return None

    def _keep(self) -> None:
        if self._waiting:
            vectors = self.encoder.encode(list(self._waiting.values()))
            self.encoder.cache.put(zip(map(key_of, self._waiting), vectors, strict=True))
            self.seen.new += len(self._waiting)
            self._waiting.clear()


def question_of(content: str, path: str, folder: PhotoFolder, prompt: Prompt, max_pixels: int) -> Question:
    """What a captioner is asked about the picture at `path`. BadPicture where it cannot be had (any more)."""
    image = as_jpeg(decode(folder.read(path, content), max_pixels), LONGEST)
    return Question(task="caption", prompt=prompt, image=image, check=usable_caption, max_tokens=CAPTION_TOKENS)


def ask(
    pictures: dict[str, str], folder: PhotoFolder, door: Door, prompt: Prompt, max_pixels: int, at_once: int
) -> dict[str, Answer | Failed]:
    """sha256 -> what a model says, of `pictures` (sha256 -> path), `at_once` of which are in memory together."""
    answers: dict[str, Answer | Failed] = {}
    with progress(len(pictures), "captions", "picture") as bar:
        for some in slices(list(pictures.items()), at_once):
            questions = {}
            for content, path in some:
                try:
                    questions[content] = question_of(content, path, folder, prompt, max_pixels)
                except BadPicture as error:  # it was good at the first look
                    answers[content] = Failed(str(error))
            answers.update(zip(questions, door.ask(list(questions.values()), "captions"), strict=True))
            bar.update(len(some))
    return answers


def plan_captions(photos_table: Path, photos: Path, params: Params) -> Plan:
    """What captioning by a paid model would cost now. Decodes every picture, but asks nothing and makes no vector."""
    if params.describe_photos.captions != "openai":
        return Plan(0, 0, 0, 0)
    model = captioner(params)
    assert model is not None
    door, prompt = model
    calls = known = tokens_in = tokens_out = 0
    asked: set[str] = set()
    table = photos_of(read_table(photos_table, PHOTOS, COLUMNS))
    with (
        photo_folder(photos, params.describe_photos.max_bytes) as folder,
        progress(len(table), "planning captions", "photo") as bar,
    ):
        for photo in table:
            bar.update()
            if photo.path is None or photo.sha256 in asked:
                continue
            try:
                content = str(photo.sha256)
                question = question_of(content, photo.path, folder, prompt, params.describe_photos.max_pixels)
            except BadPicture:  # the stage will say so; it is not asked about
                continue
            asked.add(content)
            plan = door.plan([question])
            calls, known = calls + plan.calls, known + plan.known
            tokens_in, tokens_out = tokens_in + plan.input_tokens, tokens_out + plan.output_tokens
    return Plan(calls, known, tokens_in, tokens_out)


def check_failures(answers: dict[str, Answer | Failed], share: float) -> None:
    """CheckFailed where more than `share` of the pictures asked about have no caption."""
    reasons = [answer.reason for answer in answers.values() if isinstance(answer, Failed)]
    if len(reasons) > share * len(answers):
        often, times = Counter(reasons).most_common(1)[0]
        raise CheckFailed(
            f"captions: {len(reasons)} of {len(answers)} pictures have none, {times} because: {often}; more than"
            f" llm.failed_share ({share}) allows. Run again (only these are asked), or raise it"
        )


def caption_of(
    photo: Photo, rejects: dict[str, str], answers: dict[str, Answer | Failed] | None
) -> Caption | Failed | None:
    """The photo's caption: its picture's by the model where one was asked (`answers`), else the dataset's own.

    Where a model captions, a picture that is rejected has none; one without a file keeps the dataset's.
    """
    if answers is None or photo.path is None:
        return None if photo.caption is None else Caption(photo.caption, "dataset")
    if photo.photo_id in rejects:
        return None
    answer = answers[str(photo.sha256)]
    return answer if isinstance(answer, Failed) else Caption(answer.text, answer.model, answer.calls[-1])


def describe(
    photos: Sequence[Photo],
    captions: dict[str, Caption],
    without_vector: set[str],
    encoder: ImageEncoder,
    texts: TextEncoder,
) -> Iterator[pa.Table]:
    """DESCRIPTIONS, ROWS photos at a time, by photo id."""
    distinct = {text: row for row, text in enumerate(dict.fromkeys(caption.text for caption in captions.values()))}
    caption_vectors = texts.encode(list(distinct), "embedding captions")
    for some in slices(photos, ROWS):
        said = [captions.get(photo.photo_id) for photo in some]
        has_caption = np.array([caption is not None for caption in said])
        text_rows = np.zeros((len(some), caption_vectors.shape[1]), np.float32)
        text_rows[has_caption] = caption_vectors[[distinct[caption.text] for caption in said if caption]]
        has_picture = np.array([photo.path is not None and photo.photo_id not in without_vector for photo in some])
        keys = [key_of(str(photo.sha256)) for photo, has in zip(some, has_picture, strict=True) if has]
        vectors = encoder.cache.get(list(dict.fromkeys(keys)))
        image_rows = np.zeros((len(some), DIMENSION), np.float32)
        if keys:
            image_rows[has_picture] = np.stack([vectors[key] for key in keys])
        yield pa.table(
            {
                "photo_id": [photo.photo_id for photo in some],
                "caption": pa.array([caption and caption.text for caption in said], pa.string()),
                "caption_source": pa.array([caption and caption.source for caption in said], pa.string()),
                "call": pa.array([caption and caption.call for caption in said], pa.string()),
                "caption_embedding": vector_column(text_rows, has_caption),
                "image_source": pa.array([encoder.weights.source if has else None for has in has_picture], pa.string()),
                "image_embedding": vector_column(image_rows, has_picture),
            }
        ).select(DESCRIPTIONS.names)


def key_of(sha256: str) -> bytes:
    """Of the vector cache. The table's sum is a stranger's text until a file has been found to have it."""
    return sha256.encode()


def slices(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def captioner(params: Params) -> tuple[Door, Prompt] | None:
    """The door to the model that captions, and what it is told; None where the dataset's own captions are taken."""
    stage = params.describe_photos
    if stage.captions == "dataset":
        return None
    ledger = ledger_of(params)
    if stage.captions == "blip2":
        from pipelines.core.photos.blip2 import UNPROMPTED, Blip2Provider

        # one attempt: it would say the same again
        return Door(Blip2Provider(stage.checkpoint, stage.caption_batch), ledger, attempts=1), UNPROMPTED
    from pipelines.core.openai_api.provider import OpenAIProvider

    return Door(OpenAIProvider(params.llm, ledger), ledger, params.llm.attempts), load_prompt("caption_photo")


def asked_at_once(params: Params) -> int:
    """Whole batches of blip2's; many where an answer may take a day."""
    batch = params.describe_photos.caption_batch
    return -(-(ASKED_BY_BATCH if params.llm.batch else ASKED) // batch) * batch


def report(photos: Sequence[Photo], seen: Seen, captions: int, rejects: dict[str, str]) -> None:
    files = sum(photo.path is not None for photo in photos)
    print(
        f"{len(photos)} photos, {files} with a file: {len(seen.pictures)} distinct pictures ({seen.new} new),"
        f" {captions} photos with a caption, {len(rejects)} rejects"
    )
    for reason, times in sorted(Counter(reason.split(":")[0] for reason in rejects.values()).items()):
        print(f"  {times} x {reason}")


def main(args: argparse.Namespace, params: Params) -> None:
    stage = params.describe_photos
    cache = params.cache.folder()
    texts = TextEncoder(params.embed_reviews.encoder, params.embed_reviews.batch_size, cache)
    encoder = ImageEncoder(weights_of(stage.image_weights, stage.seed), stage.image_batch, cache)
    model = captioner(params)  # before any work: what is missing is said at once
    photos = photos_of(read_table(args.photos_table, PHOTOS, COLUMNS))
    answers = None
    with photo_folder(args.photos, stage.max_bytes) as folder:
        seen = Looking(folder, encoder, stage.max_pixels).look(photos)
        if model is not None:
            answers = ask(seen.pictures, folder, *model, stage.max_pixels, asked_at_once(params))
            check_failures(answers, params.llm.failed_share)
    said = {photo.photo_id: caption_of(photo, seen.rejects, answers) for photo in photos}
    captions = {photo_id: caption for photo_id, caption in said.items() if isinstance(caption, Caption)}
    failed = {photo_id: f"no caption: {none.reason}" for photo_id, none in said.items() if isinstance(none, Failed)}
    rejects = seen.rejects | failed
    rows = [{"photo_id": photo_id, "reason": reason} for photo_id, reason in sorted(rejects.items())]
    # both come to their places when both are whole
    with whole_file(args.rejects) as rejects_file, parquet_writer(args.out, DESCRIPTIONS) as writer:
        write_table(pa.Table.from_pylist(rows, PHOTO_REJECTS), rejects_file, PHOTO_REJECTS)
        for table in describe(photos, captions, set(seen.rejects), encoder, texts):
            writer.write_table(table.cast(DESCRIPTIONS))
    report(photos, seen, len(captions), rejects)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "photos-table": "the photo table",
            "photos": "the photos' folder; nothing outside it is read",
            "out": "the table of descriptions to write",
            "rejects": "the table of rejected photos to write",
        },
    )
