"""The routes of the browser: the page, its modules, pictures, and JSON for what it asks."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from mlcls_ray.errors import MlclsError, UsageError, short_message
from mlcls_ray.explore.browse import shapes
from mlcls_ray.explore.browse.filters import Filter, Number
from mlcls_ray.explore.browse.pictures import LARGE, THUMBNAIL
from mlcls_ray.explore.browse.session import Session, View
from mlcls_ray.table import layout
from mlcls_ray.terminal import plain

STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
NOTHING = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
"""A GIF of one transparent pixel: the page asks for the reason when it gets one. An error would also be logged in the console."""
MAX_CHANGES = 500
"""Changed images that a page is told of at once; of more it is told that there are many."""
SCORE: TypeAdapter[float] = TypeAdapter(Number)
NUMBER: TypeAdapter[int] = TypeAdapter(int)
Answer = Callable[[Request, View], Any]


def make_app(session: Session) -> Starlette:
    """Make the application of a session. Who may use it is decided in front of it: see `guard`."""
    routes = Routes(session)
    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/static/{name}", routes.static),
            Route("/thumbnail/{number:int}", routes.thumbnail),
            Route("/picture/{number:int}", routes.large),
            Route("/api/picture/{number:int}", routes.picture_state),
            *(Route(f"/api/{name}", routes.json(answer)) for name, answer in routes.questions.items()),
            *(
                Route(f"/api/{name}", routes.post(kind, answer), methods=["POST"])
                for name, (kind, answer) in routes.actions.items()
            ),
        ],
        exception_handlers={
            MlclsError: _refused,
            ValidationError: _refused,
            duckdb.Error: _failed,
            HTTPException: _http_error,
        },
    )


class Routes:
    """The functions behind the routes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in TYPES}
        """Everything that `/static` serves: no path of a request ever reaches a file system."""
        environment = Environment(
            loader=PackageLoader("mlcls_ray.explore.browse"), autoescape=True, undefined=StrictUndefined
        )
        self.template = environment.get_template("index.html.j2")
        self.questions: dict[str, Answer] = {
            "page": self._page,
            "counts": lambda request, view: view.queries.counts(_filter(request))._asdict(),
            "image": self._image,
            "items": lambda request, view: {"items": _items(view.queries.items(_ids(request)))},
            "threshold": self._threshold,
            "state": self._state,
        }
        self.actions: dict[str, tuple[type[shapes.Request], Any]] = {
            "correct": (shapes.CorrectRequest, self._correct),
            "undo": (shapes.UndoRequest, self._undo),
            "thresholds": (shapes.ThresholdsRequest, self._thresholds),
            "rebuild": (shapes.Request, self._rebuild),
        }

    async def page(self, request: Request) -> Response:
        view = self.session.view
        known = shapes.facts(self.session, view)
        return HTMLResponse(self.template.render(facts=known, out=known["out"]))

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.files:
            raise HTTPException(404)
        return Response(self.files[name], media_type=TYPES[Path(name).suffix])

    async def thumbnail(self, request: Request) -> Response:
        return await self._picture(request, THUMBNAIL)

    async def large(self, request: Request) -> Response:
        return await self._picture(request, LARGE)

    async def _picture(self, request: Request, side: int) -> Response:
        """Send a picture, or one transparent pixel where there is none: `picture_state` says why."""
        picture = await self.session.view.pictures.get(request.path_params["number"], side)
        if picture is None:
            raise HTTPException(404)
        kept = {"Cache-Control": "private, max-age=600" if picture.jpeg else "no-store"}
        return Response(picture.jpeg or NOTHING, media_type="image/jpeg" if picture.jpeg else "image/gif", headers=kept)

    async def picture_state(self, request: Request) -> Response:
        side = LARGE if "large" in request.query_params else THUMBNAIL
        picture = await self.session.view.pictures.get(request.path_params["number"], side)
        if picture is None:
            raise HTTPException(404)
        return JSONResponse({"problem": plain(picture.problem or ""), "is_changed": picture.is_changed})

    def json(self, answer: Answer) -> Callable[[Request], Any]:
        """Answer a question by JSON, in a thread: DuckDB takes its time."""

        async def respond(request: Request) -> Response:
            view = self.session.view
            content = await run_in_threadpool(answer, request, view)
            return JSONResponse({**content, "version": view.version})

        return respond

    def post(self, kind: type[shapes.Request], answer: Callable[[Any, View], Any]) -> Callable[[Request], Any]:
        """Do what the body of a request says."""

        async def respond(request: Request) -> Response:
            body = kind.model_validate_json(await request.body())
            view = self.session.view
            if body.version != view.version:
                raise UsageError("the page is older than the index: load it again")
            content = await run_in_threadpool(answer, body, view)
            return JSONResponse({**content, "version": self.session.view.version})

        return respond

    def _page(self, request: Request, view: View) -> dict[str, Any]:
        after = request.query_params.get("after")
        rows = view.queries.page(_filter(request), None if after is None else NUMBER.validate_python(after))
        return {"items": _items(rows)}

    def _image(self, request: Request, view: View) -> dict[str, Any]:
        row = view.queries.image(NUMBER.validate_python(request.query_params.get("id")))
        if row is None:
            raise UsageError("there is no such image")
        return {"image": shapes.whole(row)}

    def _threshold(self, request: Request, view: View) -> dict[str, Any]:
        value = SCORE.validate_python(request.query_params.get("value"))
        preview = view.queries.preview(request.query_params.get("label", ""), value)
        rows = {row["id"]: row for row in view.queries.items([*preview.gained, *preview.lost])}
        examples = {
            "gained": _items([rows[number] for number in preview.gained]),
            "lost": _items([rows[number] for number in preview.lost]),
        }
        return {**preview._asdict(), **examples}

    def _state(self, request: Request, view: View) -> dict[str, Any]:
        place, ids = view.corrector.changed_since(NUMBER.validate_python(request.query_params.get("since", "0")))
        return {
            "place": place,
            "ids": ids[:MAX_CHANGES],
            "is_all": len(ids) <= MAX_CHANGES,
            "is_outdated": self.session.is_outdated(),
            "can_undo": view.corrector.last_action() is not None,
        }

    def _correct(self, body: shapes.CorrectRequest, view: View) -> dict[str, Any]:
        if (body.ids is None) == (body.filter is None):
            raise UsageError("give the images by ids, or by a filter")
        ids = view.queries.ids(body.filter) if body.filter is not None else list(body.ids or ())
        return _done(view.corrector.apply(ids, body.operation), view)

    def _undo(self, body: shapes.UndoRequest, view: View) -> dict[str, Any]:
        return _done(view.corrector.undo(body.correction_id), view)

    def _thresholds(self, body: shapes.ThresholdsRequest, view: View) -> dict[str, Any]:
        text = shapes.thresholds_file(view, body.classes)
        if not body.save:
            return {"text": text}
        if self.session.subject.is_read_only:
            raise UsageError("this browser is read-only: download the file instead")
        store = view.index.table.store
        name = f"{layout.THRESHOLDS}/{datetime.now(timezone.utc):%Y%m%dT%H%M%S}Z.yaml"
        try:
            store.write(name, text.encode())
        except Exception as error:  # each filesystem has its own errors
            raise UsageError(f"the thresholds were not saved: {short_message(error)}") from None
        path = store.uri(name)
        return {
            "text": text,
            "path": plain(path),
            "command": plain(shlex.join(["mlcls", "relabel", store.root, "--threshold", path])),
        }

    def _rebuild(self, body: shapes.Request, view: View) -> dict[str, Any]:
        self.session.rebuild()
        return {}


def _done(done: Any, view: View) -> dict[str, Any]:
    return {
        "correction_id": done.correction_id,
        "count": len(done.ids),
        "items": _items(view.queries.items(done.ids)),
        "can_undo": view.corrector.last_action() is not None,
    }


def _items(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [shapes.item(row) for row in rows]


def _filter(request: Request) -> Filter:
    return Filter.model_validate_json(request.query_params.get("filter", "{}"))


def _ids(request: Request) -> list[int]:
    return [NUMBER.validate_python(word) for word in request.query_params.get("ids", "").split(",") if word]


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return JSONResponse({"error": plain(f"{place}: {first['msg']}" if place else first["msg"])}, 400)
    return JSONResponse({"error": plain(error)}, 400)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": plain(short_message(error))}, 500)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"error": "there is nothing here"}, status)
