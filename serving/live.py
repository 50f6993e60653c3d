"""The ranker of the model file as it lies there now."""

import threading
import time
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from serving.ranker import Ranker, open_ranker

Mark = tuple[int, int, int]
AGAIN_S = 1.0


class Live:
    """Loads the model when it is first asked for, and again whenever its file is another.

    A stage that trains takes the old file away first: while there is none, the loaded model goes on. A file that cannot
    be used is answered for by nobody.
    """

    def __init__(self, model: Path, repo: Path, params: Params) -> None:
        self._model = model
        self._repo = repo
        self._params = params
        self._loading = threading.Lock()
        self._loaded: Ranker | None = None
        self._mark: Mark | None = None  # of the file that was last tried
        self._error: str | None = None  # of the last try
        self._tried = 0.0

    def ranker(self) -> Ranker:
        """UserError, in one line, where there is none to answer with."""
        mark = self._seen()
        # Whoever comes while another loads goes on with what there is, if there is any.
        if mark is not None and self._due(mark) and self._loading.acquire(blocking=self._loaded is None):
            try:
                if self._due(mark):
                    self._load(mark)
            finally:
                self._loading.release()
        if self._error is not None and mark is not None:
            raise UserError(self._error)
        if self._loaded is None:
            raise UserError(f"{self._model}: no such file; run `dvc repro train` to make it")
        return self._loaded

    def state(self) -> str | None:
        """None: what answers is the file's; else one line."""
        try:
            self.ranker()
        except UserError as error:
            return str(error)
        if self._seen() is None:
            return f"{self._model}: the file is gone; the model that was loaded from it still answers"
        return None

    def _due(self, mark: Mark) -> bool:
        """Another file, or time to see whether what stood in its way was mended: a registry, say."""
        return mark != self._mark or (self._error is not None and time.monotonic() - self._tried > AGAIN_S)

    def _load(self, mark: Mark) -> None:
        try:
            self._loaded, self._error = open_ranker(self._model, self._repo, self._params), None
        except UserError as error:
            self._error = str(error)
        self._mark, self._tried = mark, time.monotonic()

    def _seen(self) -> Mark | None:
        try:
            status = self._model.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
