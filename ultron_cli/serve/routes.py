"""The addresses of `ultron serve` and what each answers (docs/serve.md); a path is compared with ROUTES, never with a
file."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, parse_qs

from ultron_cli.console import dump_json
from ultron_cli.datasets.protocols import Box, check_box
from ultron_cli.errors import UltronError
from ultron_cli.serve.limits import Kind, Refused, SoughtPhoto, read_upload
from ultron_cli.serve.photo_search import SIDES_PX, PhotoSearch
from ultron_cli.visualization.report import report

PAGE = Path(__file__).with_name("page.html")
STATIC = {
    "/": (PAGE, "text/html"),
    "/page.css": (PAGE.with_suffix(".css"), "text/css"),
    "/page.js": (PAGE.with_suffix(".js"), "text/javascript"),
    "/inliers.css": (report.INLIERS.with_suffix(".css"), "text/css"),
    "/inliers.js": (report.INLIERS, "text/javascript"),
}


class Request(Protocol):
    """What a route reads of a request."""

    command: str  # GET, HEAD or POST
    parameters: dict[str, str]  # of the address, checked
    client: str  # who asks; the requests of different clients take turns

    @property
    def engine(self) -> PhotoSearch:
        """What searches."""
        ...

    def body(self, most_bytes: int) -> bytes:
        """The body of a POST. Raises Refused if it is larger."""
        ...

    def require_reader(self) -> None:
        """Raises ConnectionError if the client has gone."""
        ...


@dataclass(frozen=True)
class Answer:
    """What goes back."""

    body: bytes  # a picture, or text or JSON already encoded
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: object, status: int = 200) -> Answer:
    """`value` as JSON."""
    return Answer(
        dump_json(value, indent=None).encode(), "application/json; charset=utf-8", status, {"Cache-Control": "no-store"}
    )


def _static(request: Request, path: str) -> Answer:
    file, content_type = STATIC[path]
    return Answer(file.read_bytes(), f"{content_type}; charset=utf-8", headers={"Cache-Control": "no-cache"})


def _about(request: Request, path: str) -> Answer:
    return json_answer(request.engine.about())


def _queries(request: Request, path: str) -> Answer:
    return json_answer({"queries": request.engine.queries()})


def _kind_and_row(path: str) -> tuple[Kind, int]:
    """Of an address /query/ROW or /photo/ROW, as ROUTES has checked it."""
    kind, row = path.strip("/").split("/")
    return ("query" if kind == "query" else "photo"), int(row)


def _picture(request: Request, path: str) -> Answer:
    kind, row = _kind_and_row(path)
    size = request.parameters.get("size", "small")
    if size not in SIDES_PX:
        raise Refused(400, f"size takes {', '.join(SIDES_PX)}; found {size[:20]!r}")
    # A page asks with ?v=SESSION, so that a browser does not show photos of another database that was served before.
    # It asks again each time it is shown, as a photo may be replaced meanwhile.
    return Answer(request.engine.picture(kind, row, size), "image/jpeg", headers={"Cache-Control": "private, no-cache"})


def _describe_photo(request: Request, path: str) -> Answer:
    kind, row = _kind_and_row(path.removeprefix("/api"))
    photo = request.engine.stored(kind, row)
    box = request.engine.dataset.query(photo.name).bbx if kind == "query" and photo.name else None
    return json_answer(
        {"kind": kind, "row": photo.row, "name": photo.name, "width": photo.width, "height": photo.height, "box": box}
    )


def _search(request: Request, path: str) -> Answer:
    parameters = request.parameters
    k = _whole("k", parameters["k"]) if "k" in parameters else None
    box = _box(parameters["box"]) if parameters.get("box") else None
    # An upload is received before its turn: nobody waits for a slow sender.
    upload = request.body(request.engine.config.max_upload_bytes) if request.command == "POST" else None
    with _turn(request):
        started_s = time.perf_counter()
        results = request.engine.find(_sought_photo(request, upload), k=k, box=box, rerank=parameters.get("rerank"))
    return json_answer(results | {"seconds": round(time.perf_counter() - started_s, 4)})


@contextmanager
def _turn(request: Request) -> Iterator[None]:
    """A turn to compute. A page that has asked anew meanwhile, or is closed, needs none. Raises Refused if too many
    wait."""
    with request.engine.queue.turn(request.client):
        request.require_reader()
        yield


def _sought_photo(request: Request, upload: bytes | None) -> SoughtPhoto:
    """The photo of a search: the upload, else the query or database photo that is named."""
    if upload is not None:
        return read_upload(upload, request.engine.config)
    parameters = request.parameters
    if ("query" in parameters) == ("photo" in parameters):
        raise Refused(
            400, "a search names query=ROW or photo=ROW, one of them; or it is a POST with a photo as its body"
        )
    kind = "query" if "query" in parameters else "photo"
    return request.engine.stored(kind, _whole(kind, parameters[kind]))


def _map(request: Request, path: str) -> Answer:
    parameters = request.parameters
    if "search" not in parameters or "row" not in parameters:
        raise Refused(400, "a map takes search=ID, as a search answered it, and row=ROW of a database photo")
    with _turn(request):
        return json_answer(request.engine.heat(parameters["search"], _whole("row", parameters["row"])))


def _inliers(request: Request, path: str) -> Answer:
    parameters = request.parameters
    if "search" not in parameters or "row" not in parameters:
        raise Refused(400, "inliers take search=ID, as a search answered it, and row=ROW of a database photo")
    with _turn(request):
        return json_answer(request.engine.inliers(parameters["search"], _whole("row", parameters["row"])))


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Refused(400, f"{name} must be a whole number, found {text[:40]!r}")
    return int(text)


def _box(text: str) -> Box:
    try:
        box = check_box([float(part) for part in text.split(",")], "box")
    except ValueError:
        raise Refused(400, f"box takes four numbers X1,Y1,X2,Y2; found {text[:60]!r}") from None
    except UltronError as error:
        raise Refused(400, error.message.removeprefix("box: ").removesuffix("; correct the ground truth")) from None
    assert box is not None  # None is for no value
    return box


@dataclass(frozen=True)
class Route:
    """An address and what answers it."""

    method: str
    path: re.Pattern[str]  # of the whole path
    parameter_names: tuple[str, ...]
    answer: Callable[[Request, str], Answer]  # of a request and its path


ROUTES = (
    Route("GET", re.compile(r"/|/(?:page|inliers)\.(?:css|js)"), (), _static),
    Route("GET", re.compile(r"/api/about"), (), _about),
    Route("GET", re.compile(r"/api/queries"), (), _queries),
    Route("GET", re.compile(r"/api/(?:query|photo)/[0-9]{1,9}"), (), _describe_photo),
    Route("GET", re.compile(r"/(?:query|photo)/[0-9]{1,9}"), ("size", "v"), _picture),
    Route("GET", re.compile(r"/api/search"), ("query", "photo", "k", "box", "rerank"), _search),
    Route("POST", re.compile(r"/api/search"), ("k", "box", "rerank"), _search),
    Route("GET", re.compile(r"/api/map"), ("search", "row"), _map),
    Route("GET", re.compile(r"/api/inliers"), ("search", "row"), _inliers),
)


def answer(request: Request, target: SplitResult) -> Answer:
    """The answer to a checked request. Raises Refused if there is none."""
    method = "GET" if request.command == "HEAD" else request.command
    routes = [route for route in ROUTES if route.path.fullmatch(target.path)]
    if not routes:
        raise Refused(404, "there is nothing at this address; docs/serve.md lists what there is")
    for route in routes:
        if route.method == method:
            request.parameters = _parameters(target.query, route.parameter_names)
            return route.answer(request, target.path)
    raise Refused(405, f"{request.command} does not apply here; use {' or '.join(route.method for route in routes)}")


def _parameters(query: str, names: tuple[str, ...]) -> dict[str, str]:
    """The parameters of an address. Raises Refused for an unknown or repeated one."""
    try:
        values_of = parse_qs(query, keep_blank_values=True, max_num_fields=16)
    except ValueError:
        raise Refused(400, "at most 16 parameters") from None
    for name, values in values_of.items():
        if name not in names:
            raise Refused(400, f"unknown parameter {name[:40]!r}; this takes {', '.join(names) or 'none'}")
        if len(values) > 1:
            raise Refused(400, f"{name} is given more than once")
    return {name: values[0] for name, values in values_of.items()}
