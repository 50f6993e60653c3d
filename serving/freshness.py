"""Whether the ranker is ready, and how old the newest rows are: looked for in a thread, so that nobody waits for it."""

import gc
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from serving.live import Live
from serving.ranker import Ranker
from serving.rows import Unlisted

logger = logging.getLogger(__name__)

LEAST_PAUSE_S = 0.5  # between two looks, however often somebody asks for one
PATIENCE_S = 30.0  # for one look; after that the store counts as hanging


@dataclass(frozen=True)
class ModelInfo:
    feature_service: str
    digest: str


@dataclass(frozen=True)
class Seen:
    """What one look found."""

    model: ModelInfo | None = None
    views: Mapping[str, tuple[int, datetime | None]] = field(default_factory=dict)  # rows, the newest one's instant
    reasons: tuple[str, ...] = ("starting: the model and the online store have not been looked at yet",)
    warnings: tuple[str, ...] = ()


class Freshness:
    """Looks every `serve.freshness_every_s`, and at once after `look_soon`. Ages are of the moment one asks."""

    def __init__(self, live: Live, params: Params) -> None:
        self._live = live
        self._every_s = params.serve.freshness_every_s
        self._bound_hours = params.serve.stale_after_hours
        self._seen = Seen()
        self._begun: float | None = None  # of the look under way
        self._settled: Ranker | None = None
        self._wake = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The thread ends when its look does; a store that hangs is not waited for."""
        self._over.set()
        self._wake.set()
        self._thread.join(timeout=1.0)

    def look_soon(self) -> None:
        """Something failed or was mended: do not wait for the next turn."""
        self._wake.set()

    def answers(self, ranker: Ranker) -> None:
        """This one answers now: if it is new, what is said of the model is looked at again at once."""
        if ranker is not self._settled:
            self.look_soon()

    @property
    def model(self) -> ModelInfo | None:
        return self._seen.model

    @property
    def views(self) -> Mapping[str, tuple[int, datetime | None]]:
        return self._seen.views

    @property
    def warnings(self) -> list[str]:
        return list(self._seen.warnings)

    def ages(self) -> dict[str, float]:
        """View -> seconds since its newest row's instant; views without rows have none."""
        now = datetime.now(UTC)
        return {view: (now - newest).total_seconds() for view, (_, newest) in self._seen.views.items() if newest}

    def reasons(self) -> list[str]:
        """Why this is not ready, a line each; none: it is."""
        found = list(self._seen.reasons)
        begun = self._begun
        if begun is not None and (waited := time.monotonic() - begun) > PATIENCE_S:
            found.append(f"model and online store have not answered for {waited:.0f} s: see that the store runs")
        if self._bound_hours is not None:
            found += [
                f"{view}: its newest row is {age / 3600:.1f} hours old, `serve.stale_after_hours` is"
                f" {self._bound_hours:g}: materialize newer rows"
                for view, age in self.ages().items()
                if age > self._bound_hours * 3600
            ]
        return found

    def look(self) -> None:
        """One look, here and now."""
        self._begun = time.monotonic()
        try:
            seen = self._found()
        finally:
            self._begun = None
        if seen.reasons and seen.reasons != self._seen.reasons:
            logger.warning("not ready: %s", "; ".join(seen.reasons))
        elif self._seen.reasons and not seen.reasons:
            logger.info("ready")
        for line in set(seen.warnings) - set(self._seen.warnings):
            logger.warning("%s", line)
        self._seen = seen

    def _found(self) -> Seen:
        before = self._seen
        try:
            ranker = self._live.ranker()
        except UserError as error:
            return Seen(None, before.views, (str(error),))
        model = ModelInfo(ranker.service, ranker.digest)
        state = self._live.state()
        warnings = () if state is None else (state,)
        try:
            views = ranker.look()
            self._settle(ranker)
        except Unlisted as error:
            return Seen(model, {}, (), (*warnings, str(error)))
        except UserError as error:
            return Seen(model, before.views, (str(error),), warnings)
        empty = f"no view of {ranker.service} has a row in the online store: run `feast materialize`, or `dvc repro`"
        return Seen(model, views, () if any(rows for rows, _ in views.values()) else (empty,), warnings)

    def _settle(self, ranker: Ranker) -> None:
        """Have a new ranker ready for its first requests, and what it brought out of the garbage collector's sight.

        Torch and Feast leave half a million objects: going through them stops every thread for a tenth of a second.
        """
        if ranker is not self._settled:
            ranker.warm()
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._settled = ranker

    def _run(self) -> None:
        while not self._over.is_set():
            self._wake.clear()
            try:
                self.look()
            except Exception:
                # A bug; the thread must go on, or readiness would tell of this moment for ever.
                logger.exception("the look at the online store failed")
                self._seen = Seen(None, self._seen.views, ("the last look failed: the log has the traceback",))
            self._over.wait(min(LEAST_PAUSE_S, self._every_s))
            self._wake.wait(self._every_s)
