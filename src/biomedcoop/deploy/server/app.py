"""The addresses of the server. Bodies are read by ``uploads.py`` and images by ``images.py``; all work is done in threads."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from biomedcoop.deploy.server.answers import NOT_A_DEVICE, explanation, predictions
from biomedcoop.deploy.server.guard import App, Guard, Scope
from biomedcoop.deploy.server.images import images_in
from biomedcoop.deploy.server.limits import Limits, RefusedRequest
from biomedcoop.deploy.server.metrics import Metrics
from biomedcoop.deploy.server.models import Models, ServedModel
from biomedcoop.deploy.server.training import Trainings, method_names
from biomedcoop.deploy.server.uploads import FORM, RAW, read_uploads
from biomedcoop.deploy.server.work import Deadline, Work
from biomedcoop.errors import UserError, nearest
from biomedcoop.tasks.request import TrainRequest
from biomedcoop.version import __version__

PAGES = Path(__file__).parent / "pages"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'"
)
"""For the report, which holds its own style and script, and a stricter policy that names its script."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
}

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Images: the files of a form, or one file as the body. A zip archive counts as its images.",
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", *RAW)},
        },
    }
}
TRAINING_BODY = {
    "required": True,
    "description": "Images, each under its path in a folder that 'biomedcoop train' reads: class/file or split/class/file, "
    "with further folders between class and file if need be.",
    "content": {FORM: BODY["requestBody"]["content"][FORM]},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is truncated or no form."},
    404: {"description": "There is no such model."},
    408: {"description": "The upload or the answer took too long."},
    413: {"description": "Too many bytes, images or pixels."},
    415: {"description": "The body or a file is of a type that is not read."},
    422: {"description": "An image or a parameter cannot be used."},
    429: {"description": "All places are taken."},
}

log = logging.getLogger("biomedcoop.server")

_Model = Query(None, description="Name of the model. Needed if the server was started with several.")
_Window = Query(None, description="Window of grey DICOM images, e.g. brain or 40,400. Default: that of the training.")
_Frame = Query(
    None, description="Frames of DICOM files: all, middle, or a number from 0. Default: that of the training."
)


def _check_parameters(request: Request) -> None:
    """Refuse a parameter that the address does not have, or that is given twice: the web framework would leave it out."""
    known = [one.alias for one in request.scope["route"].dependant.query_params]
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            raise RefusedRequest(422, f"no parameter '{name[:80]}'; {nearest(name[:80], known)}")
        if given.count(name) > 1:
            raise RefusedRequest(422, f"the parameter '{name}' is given {given.count(name)} times; give it once")


def make_app(models: Models, limits: Limits, guard: Guard, trainings: Trainings) -> App:
    """The server as an ASGI application."""
    app = FastAPI(
        title="biomedcoop",
        version=__version__,
        description=NOT_A_DEVICE,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(_check_parameters)],
    )
    work, metrics = Work(limits), Metrics()
    _add_pages(app)

    def model_for(name: str | None, window: str | None, frame: str | None) -> ServedModel:
        served = models.named(name)
        try:
            return ServedModel(served.name, served.classifier.read_with(window, frame), served.trained_here)
        except UserError as error:
            raise RefusedRequest(422, str(error)) from None

    @app.post("/predict", responses=ERRORS, openapi_extra=BODY, summary="Predict the class of each image")
    async def predict(
        request: Request,
        model: str | None = _Model,
        window: str | None = _Window,
        frame: str | None = _Frame,
        skip_bad: bool = Query(False, description="Go on after images that cannot be read; their rows hold an error."),
    ) -> JSONResponse:
        chosen = model_for(model, window, frame)
        async with work.place():
            uploads = await read_uploads(request, limits.request_bytes, limits.images, limits.seconds)

            def answer(deadline: Deadline) -> dict[str, Any]:
                images, left_out = images_in(uploads, chosen.classifier.reading, limits, skip_bad=skip_bad)
                uploads.clear()  # the images keep what they need
                return {**predictions(chosen, images, deadline, skip_bad=skip_bad), "files_left_out": left_out}

            found = await work.run(answer)
        metrics.predicted(chosen.name, len(found["predictions"]))
        return JSONResponse(found)

    @app.post("/explain", responses=ERRORS, openapi_extra=BODY, summary="Show where in one image a score comes from")
    async def explain(
        request: Request,
        model: str | None = _Model,
        class_name: str | None = Query(
            None, alias="class", description="Class to explain. Default: the predicted one."
        ),
        map: str | None = Query(None, description="Kind of saliency map, see 'biomedcoop explain --help'."),
        window: str | None = _Window,
        frame: str | None = _Frame,
    ) -> JSONResponse:
        chosen = model_for(model, window, frame)
        async with work.place():
            uploads = await read_uploads(request, limits.request_bytes, 1, limits.seconds)

            def answer(deadline: Deadline) -> dict[str, Any]:
                images, _ = images_in(uploads, chosen.classifier.reading, limits)
                if len(images) > 1:
                    raise RefusedRequest(
                        413,
                        f"{len(images)} images are given, and one is explained at a time; choose with ?frame=middle",
                    )
                deadline.check()
                return explanation(chosen, images[0], class_name, map)

            return JSONResponse(await work.run(answer))

    @app.get("/models", summary="The models and their classes")
    def list_models() -> dict[str, Any]:
        return {"models": [model.to_dict() for model in models], "note": NOT_A_DEVICE}

    @app.get("/health", summary="Whether the server lives, and whether models have changed on disk")
    def health(request: Request) -> dict[str, Any]:
        changed = [model.name for model in models if model.changed]
        state: dict[str, Any] = {"status": "changed" if changed else "ok", "version": __version__}
        if guard.knows(request.headers.get("authorization", "")):
            state["changed_on_disk"] = changed
        return state

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse)
    async def count() -> PlainTextResponse:
        return PlainTextResponse(metrics.text(work.inside), media_type="text/plain; version=0.0.4; charset=utf-8")

    _add_training(app, limits, trainings)
    _add_errors(app)
    return _Outside(app, guard, metrics, {route.path for route in app.routes if hasattr(route, "path")})


def _add_pages(app: FastAPI) -> None:
    pages = {path.name: path.read_bytes() for path in PAGES.iterdir() if path.suffix in KINDS}

    def page(name: str) -> Response:
        if name not in pages:
            raise RefusedRequest(404, "there is no such page; open /")
        return Response(pages[name], media_type=f"{KINDS[Path(name).suffix]}; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return page("docs.html")

    @app.get("/pages/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return page(name)


def _add_training(app: FastAPI, limits: Limits, trainings: Trainings) -> None:
    @app.get("/train", summary="Whether this server trains, and by which methods")
    async def about() -> dict[str, Any]:
        return {"trains": trainings.reason is None, "reason": trainings.reason, "methods": method_names()}

    @app.post(
        "/train",
        status_code=202,
        responses={
            **ERRORS,
            403: {"description": "This server does not train."},
            409: {"description": "One is running."},
        },
        openapi_extra={"requestBody": TRAINING_BODY},
        summary="Train a model on images",
    )
    async def start(
        request: Request,
        name: str = Query(
            "trained", pattern="^[A-Za-z0-9_-]{1,40}$", description="Name of the model: letters, digits, _, -."
        ),
        method: str = Query("auto", description="Adaptation method, see 'biomedcoop methods list'."),
        modality: str | None = Query(None, description="Modality of the images, e.g. ultrasound."),
        organ: str | None = Query(None, description="Organ in the images, e.g. breast."),
        recipe: str = Query("general", description="Named set of settings, see 'biomedcoop train --help'."),
        shots: str | None = Query(None, description="Training images per class. Default: 16, or fewer."),
    ) -> dict[str, Any]:
        given = {"method": method, "modality": modality, "organ": organ, "recipe": recipe, "shots": shots}
        options = {key: value for key, value in given.items() if value is not None}
        trainings.reserve()
        try:
            try:
                TrainRequest.of({"data": ".", **options})
            except UserError as error:
                raise RefusedRequest(422, str(error)) from None
            uploads = await read_uploads(request, limits.training_bytes, limits.training_images, 5 * limits.seconds)
            training = await asyncio.to_thread(trainings.start, uploads, name, options)
        except BaseException:
            trainings.release()
            raise
        return training.to_dict()

    @app.get("/train/{key}", summary="How far a training is, and its verdict")
    async def state(key: str) -> dict[str, Any]:
        return trainings.named(key).to_dict()

    @app.delete("/train/{key}", summary="Stop a training")
    async def stop(key: str) -> dict[str, Any]:
        training = trainings.named(key)
        training.stop.set()
        return training.to_dict()

    @app.get("/train/{key}/report.html", summary="The report of a training", response_class=Response)
    async def report(key: str) -> Response:
        return _made(
            trainings.named(key).report, "text/html; charset=utf-8", {"Content-Security-Policy": REPORT_POLICY}
        )

    @app.get("/train/{key}/model.zip", summary="The trained model", response_class=Response)
    async def model(key: str) -> Response:
        training = trainings.named(key)
        name = {"Content-Disposition": f'attachment; filename="{training.name}.zip"'}
        return _made(training.model, "application/zip", name)


def _made(content: bytes, kind: str, headers: dict[str, str]) -> Response:
    if not content:
        raise RefusedRequest(404, "the training is not done; ask for its state first")
    return Response(content, media_type=kind, headers=headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedRequest)
    async def refused(_: Request, error: RefusedRequest) -> JSONResponse:
        return _line(error)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return _line(RefusedRequest(error.status_code, f"{str(error.detail).lower()}; see /docs"))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _line(RefusedRequest(422, f"{first['loc'][-1]}: {first['msg'].lower()}; see /docs"))

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        return _line(_fault(error))  # the framework raises the error again, for the log


def _line(error: RefusedRequest) -> JSONResponse:
    return JSONResponse({"error": " ".join(error.reason.split())}, error.status, error.headers)


def _fault(error: Exception) -> RefusedRequest:
    return RefusedRequest(500, f"a fault of the server ({type(error).__name__} at {_place(error)}); see its log")


class _Outside:
    """What surrounds every request: the guard, the security headers, HEAD as GET, the counters, and a fault of ours in one line."""

    def __init__(self, app: App, guard: Guard, metrics: Metrics, paths: set[str]) -> None:
        self.app, self.guard, self.metrics, self.paths = app, guard, metrics, paths

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.monotonic(), 0
        path = scope["path"] if scope["path"] in self.paths else "other"

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                held = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in held)]
            await send(message)

        try:
            self.guard.check(scope)
            # the connection leaves out the body of an answer to HEAD
            asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self.app(asked, receive, send_with_headers)
        except RefusedRequest as error:
            await _line(error)(scope, receive, send_with_headers)
        except Exception as error:
            # neither the message nor a traceback nor the address as it was asked: they may quote an image's header
            log.error("%s in %s at %s", type(error).__name__, path, _place(error))
            if not status:
                await _line(_fault(error))(scope, receive, send_with_headers)
        finally:
            self.metrics.answered(path, status, time.monotonic() - begin)


def _place(error: BaseException) -> str:
    """File and line of our code that the error came through last."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if "biomedcoop" in file.parts:
            place = f"{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
