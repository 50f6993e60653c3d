"""The ranker over HTTP: typed requests, one shape of errors, one page.

Rankings run in threads, so that whoever waits for a store that hangs keeps nobody from asking whether we live.
"""

import asyncio
import base64
import hashlib
import ipaddress
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.vocabulary import PRICE_TAGS
from serving.catalogue import Catalogue
from serving.choice import Asked, answer_of, choose, reads_tags
from serving.freshness import Freshness
from serving.limits import Limits
from serving.live import Live
from serving.metrics import Measured, Metrics
from serving.ranker import Ranker
from serving.requests import (
    BadField,
    CatalogueAnswer,
    ErrorAnswer,
    HealthAnswer,
    NotJson,
    Prices,
    RankAnswer,
    RankRequest,
    ReadyAnswer,
    UserLine,
    UsersAnswer,
    UsersQuery,
    ViewLine,
    WhyQuery,
    bad_field,
    read_rank_request,
    shown,
)
from serving.rows import Unreachable
from serving.why import why

LISTEN_BACKLOG = 2048
BODY_S = 10.0
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
PAGE = Path(__file__).with_name("page.html")
ROUTES = ("/", "/rank", "/why", "/users", "/catalogue", "/health", "/ready", "/metrics", "/openapi.json")
ABOUT = """Which of these businesses, for this user, now? And why.

Every error is `{"error": "one line"}`. Where a token is set, all but `/`, `/health` and `/ready` want it as
`Authorization: Bearer <token>`.
"""
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "A token is set, and this is not it"},
    422: {"model": ErrorAnswer, "description": "A field is unknown, missing or impossible"},
    503: {"model": ErrorAnswer, "description": "No model or no online store to answer with; it comes back by itself"},
}
BODY_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "Not JSON, or not UTF-8"},
    413: {"model": ErrorAnswer, "description": "The body is above `serve.most_bytes`"},
}


class Unavailable(Exception):
    """There is nothing to answer with now: one line. 503."""


def create_app(
    live: Live, params: Params, data: Path, token: str | None, hosts: Collection[str] | None = None
) -> FastAPI:
    """The app; it looks at model and store from its start-up on. `data`: where tables/ and features/ lie; `hosts`: as
    `Limits` takes them."""
    freshness = Freshness(live, params)
    metrics = Metrics(freshness)
    catalogue = Catalogue(data)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        freshness.start()
        yield
        freshness.stop()

    app = FastAPI(
        title="mmrec",
        version="1",
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,  # its viewer would come from another machine
        redoc_url=None,
        redirect_slashes=False,
    )
    answer_errors_in_one_shape(app, freshness)
    # The last one is the outermost: what Limits refuses is counted too.
    app.add_middleware(Limits, most_bytes=params.serve.most_bytes, token=token, hosts=hosts)
    app.add_middleware(Measured, metrics=metrics, routes=ROUTES)
    secured = [] if token is None else [Depends(HTTPBearer(auto_error=False))]  # for OpenAPI; Limits is who looks

    def ranker() -> Ranker:
        try:
            found = live.ranker()
        except UserError as error:
            raise Unavailable(str(error)) from None
        freshness.answers(found)
        return found

    @app.post(
        "/rank",
        response_model=RankAnswer,
        responses=ERRORS | BODY_ERRORS,
        openapi_extra=body_of(RankRequest),
        dependencies=secured,
    )
    def rank(body: Annotated[bytes, Depends(read_body)]) -> RankAnswer:
        """The best of the candidates for a user. An unknown user or business is ranked as one without a history."""
        wanted = read_rank_request(body, params.serve.most_candidates)
        asked = Asked(
            wanted.user_id,
            wanted.candidates,
            wanted.category,
            wanted.price_tag,
            wanted.max_price,
            wanted.exclude or (),
            wanted.top,
            wanted.at,
        )
        return answered(asked)

    def answered(asked: Asked) -> RankAnswer:
        model = ranker()
        chosen = choose(model, catalogue.businesses(), asked, params.serve.most_candidates)
        metrics.count(chosen)
        return answer_of(model, asked, chosen)

    @app.get("/why", responses=ERRORS, dependencies=secured)
    def explain(asked: Annotated[WhyQuery, Query()]) -> dict[str, Any]:
        """What the model was told of a user and a business, where each of it is from, and what moved its answer.

        `views`: each row of the online store, its instant and age, its features, and for summaries and tags the
        `reading`: the text, who wrote it, the question, and the calls it took. `moved`: by how much the probability
        differs from the one with that part unknown, the most first.
        """
        return why(ranker(), asked.user_id, asked.business_id, asked.at, data, params)

    @app.get("/users", response_model=UsersAnswer, responses=ERRORS, dependencies=secured)
    def users(asked: Annotated[UsersQuery, Query()]) -> UsersAnswer:
        """Users whose ids begin so, those with most reviews first."""
        found = catalogue.users().beginning_with(asked.prefix, asked.limit)
        return UsersAnswer(users=[UserLine(user_id=user_id, reviews=reviews) for user_id, reviews in found])

    @app.get("/catalogue", response_model=CatalogueAnswer, responses=ERRORS, dependencies=secured)
    def what_there_is() -> CatalogueAnswer:
        """What can be asked for: categories, price tags, the range of prices."""
        businesses = catalogue.businesses()
        prices = businesses.prices
        return CatalogueAnswer(
            businesses=len(businesses.ids),
            categories=list(businesses.categories),
            price_tags=list(PRICE_TAGS) if reads_tags(ranker()) else [],
            prices=None if prices is None else Prices(min=prices[0], max=prices[1]),
        )

    @app.get("/health", response_model=HealthAnswer)
    async def health() -> HealthAnswer:
        """Whether this process answers at all; asks neither model nor store."""
        return HealthAnswer(alive=True)

    @app.get("/ready", response_model=ReadyAnswer, responses={503: {"model": ReadyAnswer, "description": "Not ready"}})
    async def ready() -> Response:
        """Whether there is a model and an online store to answer with, and rows that are fresh enough."""
        reasons, ages = freshness.reasons(), freshness.ages()
        answer = ReadyAnswer(
            ready=not reasons,
            reasons=reasons,
            warnings=freshness.warnings,
            views={
                view: ViewLine(rows=rows, newest=newest, age_seconds=ages.get(view))
                for view, (rows, newest) in freshness.views.items()
            },
        )
        return JSONResponse(answer.model_dump(mode="json"), 503 if reasons else 200)

    @app.get("/metrics", response_class=Response, dependencies=secured)
    async def figures() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    page, policy = read_page(PAGE)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def front() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    return app


async def read_body(request: Request) -> bytes:
    """408 where it does not come: a few hundred who never end would be all that are answered."""
    try:
        async with asyncio.timeout(BODY_S):
            return await request.body()
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {BODY_S:g} s", {"connection": "close"}) from None


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """How OpenAPI says that a request's body is a `model`, which the route reads by itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def answer_errors_in_one_shape(app: FastAPI, freshness: Freshness) -> None:
    """{"error": line} for whatever goes wrong; what is a bug keeps its traceback in the log."""

    def line(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": " ".join(text.split())}, status, headers)

    @app.exception_handler(NotJson)
    async def not_json(_: Request, error: NotJson) -> JSONResponse:
        return line(400, str(error))

    @app.exception_handler(BadField)
    async def field_is_bad(_: Request, error: BadField) -> JSONResponse:
        return line(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def query_is_bad(request: Request, error: RequestValidationError) -> JSONResponse:
        return line(422, bad_field(error.errors()[0], FIELDS_OF_QUERY.get(request.url.path, [])))

    @app.exception_handler(UserError)
    async def cannot_be_answered(_: Request, error: UserError) -> JSONResponse:
        return line(422, str(error))

    @app.exception_handler(Unreachable)
    @app.exception_handler(Unavailable)
    async def nothing_to_answer_with(_: Request, error: Exception) -> JSONResponse:
        freshness.look_soon()
        return line(503, str(error), {"retry-after": "1"})

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        path, allowed = shown(request.scope["path"]), Headers(error.headers).get("allow")
        said = {
            404: f"{path}: no such path; /openapi.json lists those that are",
            405: f"{path}: {request.method:.20} is not taken here, {allowed} is",
        }
        return line(error.status_code, said.get(error.status_code, error.detail), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        return line(400, "the body ended early")  # nobody is there to read it

    @app.exception_handler(Exception)
    async def bug(_: Request, __: Exception) -> JSONResponse:
        return line(500, "this is a bug of the server's: its log has the traceback")


FIELDS_OF_QUERY = {"/why": list(WhyQuery.model_fields), "/users": list(UsersQuery.model_fields)}


def read_page(path: Path) -> tuple[str, str]:
    """The page, and a content security policy that lets it run its own script and style, and talk to us alone."""
    page = path.read_text(encoding="utf-8")
    hashes = {tag: hash_of(re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)) for tag in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def hash_of(texts: Sequence[str]) -> str:
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)


def serve(live: Live, params: Params, data: Path, token: str | None, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Answer at `host` and `port` (0: a free one) until told to end. UserError where it cannot be had."""
    listening = bind(host, port)
    address = listening.getsockname()
    is_local = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
    if token is None and not is_local:
        print(
            f"warning: {host} is reachable from other machines, and nobody needs a token: set MMREC_TOKEN",
            file=sys.stderr,
        )
    hosts = {host, *LOCAL_NAMES} if token is None and is_local else None
    shown_host = f"[{host}]" if ":" in host else host
    print(f"serving http://{shown_host}:{address[1]}/", flush=True)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    # No line a request: its path names a user. Metrics count them.
    config = uvicorn.Config(
        create_app(live, params, data, token, hosts),
        access_log=False,
        log_level="warning",
        server_header=False,
        http="h11",  # which bounds a request's head, at 64 KB
        timeout_graceful_shutdown=5,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def bind(host: str, port: int) -> socket.socket:
    """UserError names the address that cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: {reason(error)}; name an address of this machine") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(LISTEN_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(f"--host {host} --port {port}: {reason(error)}; pass another") from None
    return listening


def reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()
