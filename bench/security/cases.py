"""Bodies within bounds that may take a server long: texts, documents, and what is disguised."""

from __future__ import annotations

import heapq
import itertools
import json
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from lapse.limits.rules import (
    MIB,
    MOST_BEYOND_ASCII,
    MOST_ENTRIES,
    MOST_ESCAPES,
    MOST_TEXT,
    MOST_TYPED,
    MOST_VALUES,
)

USER: Final = "ada"
APP: Final = "echo"
SESSIONS: Final = f"/apps/{APP}/users/{USER}/sessions"
_JSON: Final = {"Content-Type": "application/json"}


class Request(NamedTuple):
    """One request; `{id}` stands for a new session."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str] = _JSON


class Case(NamedTuple):
    """What is sent, one request after the other, and its name."""

    name: str
    requests: list[Request]


# Text that is slow to read.

_LARGEST: Final = 20 * MIB
_RUN: Final = b'{"appName":"%s","userId":"%s","sessionId":"{id}","newMessage":{"parts":[%%s]}}' % (
    APP.encode(),
    USER.encode(),
)


def runs(parts: bytes, **more: Any) -> list[Request]:
    """Return a message as each route takes it."""
    body = _RUN % parts
    if more:
        body = body[:-1] + b"," + json.dumps(more).encode()[1:]
    detached = _JSON | {"Lapse-Detach": "true"}
    of_session = b'{"newMessage":{"parts":[%s]}}' % parts
    return [
        Request("POST", "/run", body),
        Request("POST", "/run_sse", body),
        Request("POST", "/run_sse", body, detached),
        Request(
            "POST", f"{SESSIONS}/{{id}}/run", of_session, _JSON | {"Accept": "text/event-stream"}
        ),
    ]


def texts() -> Iterator[Case]:
    """Yield strings and numbers of all kinds, as large as a body may be."""
    room = MOST_TEXT - 400
    yield from _files()
    yield from _text("text beyond the bound", b"x" * (_LARGEST - 400))
    fillings = {
        "plain": b"x",
        "of two bytes": "é".encode(),
        "of three bytes": "你".encode(),
        "of four bytes": "👩".encode(),
        "of commas and brackets": b",[{",
    }
    for name, unit in fillings.items():
        most = room if unit.isascii() else MOST_BEYOND_ASCII - 400
        text = unit * (most // len(unit))
        yield from _text(f"text {name}", text + b"x" * (room - len(text)))
    for name, unit in {
        "line ends": b"\\n",
        "quotes": b'\\"',
        "escaped characters": b"\\u4f60",
        "escaped pairs": b"\\ud83d\\udc69",
        "escapes and commas": b'\\",',
    }.items():
        count = min(MOST_ESCAPES // unit.count(b"\\"), room // len(unit))
        rest = room - count * len(unit)
        yield from _text(f"text of {name}", unit * count + b"x" * rest)
        spread = unit + b"x" * (rest // count)
        yield from _text(f"text of {name}, spread", spread * count)
    count = MOST_VALUES - 50
    numbers = {
        "long integers": b",".join([b"9" * 4299] * (count * 31 // 4300)) + b",1" * count,
        "long fractions": b",".join([b"0." + b"1" * 28] * count),
        "empty objects": b",".join([b"{}"] * (count // 2)),
        "keys": b'{"' + b'":0,"'.join(b"%d" % n for n in range(count)) + b'":0}',
        "long keys": b'{"' + b'":0,"'.join(b"%018d" % n for n in range(count)) + b'":0}',
        "strings": b",".join([b'"x"'] * count),
    }
    for name, values in numbers.items():
        cut = values[:1_000_000].rpartition(b",")[0] if len(values) > 1_000_000 else values
        cut = cut if not values.startswith(b'{"') or cut is values else cut + b"}"
        state = b'{"stateDelta":{"k":[%s]}}' % cut
        yield Case(f"PATCH {name}", [Request("PATCH", f"{SESSIONS}/{{id}}", state)])
        create = b'{"state":{"k":[%s]}}' % cut
        yield Case(f"create with {name}", [Request("POST", SESSIONS, create)])
        part = b'{"functionResponse":{"name":"f","response":{"r":[%s]}}}' % cut
        for one in runs(part):
            yield Case(f"{_of(one)} {name}", [one])
    for one in runs(b'{"text":"x"}', customMetadata={str(n): n for n in range(5_000)}):
        yield Case(f"{_of(one)} with metadata", [one])
    broken = b'{"a":[' + b"1," * (MOST_VALUES - 10) + b"}"
    yield Case("create, broken at the end", [Request("POST", SESSIONS, broken)])
    white = b'{"state":' + b" " * (MIB - 50) + b"{}}"
    yield Case("create with white space", [Request("POST", SESSIONS, white)])


def _files() -> Iterator[Case]:
    """Yield files as large as a body may be, and text that makes all of the body wide."""
    data = b"QUFB" * ((_LARGEST - MIB) // 4)
    file = b'{"inlineData":{"mimeType":"image/png","data":"%s"}}' % data
    for name, parts in (
        ("a file", file),
        ("a file and a text of four bytes", file + ',{"text":"👩"}'.encode()),
    ):
        for one in runs(parts):
            yield Case(f"{_of(one)} {name}", [one])
    artifact = b'{"filename":"f","artifact":%s}' % file
    yield Case("artifact a file", [Request("POST", f"{SESSIONS}/{{id}}/artifacts", artifact)])


def _text(name: str, text: bytes) -> Iterator[Case]:
    for one in runs(b'{"text":"%s"}' % text):
        yield Case(f"{_of(one)} {name}", [one])
    artifact = b'{"filename":"f","artifact":{"text":"%s"}}' % text
    yield Case(f"artifact {name}", [Request("POST", f"{SESSIONS}/{{id}}/artifacts", artifact)])
    state = b'{"state":{"k":"%s"}}' % _cut(text, MIB - 50)
    yield Case(f"create with {name}", [Request("POST", SESSIONS, state)])
    state = b'{"stateDelta":{"k":"%s"}}' % _cut(text, MIB - 50)
    yield Case(f"PATCH {name}", [Request("PATCH", f"{SESSIONS}/{{id}}", state)])


def _cut(text: bytes, size: int) -> bytes:
    """Cut text where no escape and no character is cut in two."""
    cut = text[:size].decode(errors="ignore")
    return re.sub(r"\\(?:u[0-9a-f]{0,3}|u[0-9a-f]{4}\\?(?:u[0-9a-f]{0,3})?)?$", "", cut).encode()


def _of(one: Request) -> str:
    if one.path.startswith("/apps"):
        return "…/run"
    return one.path + (" detached" if "Lapse-Detach" in one.headers else "")


# What is stored, and read again.


def stored() -> Iterator[Case]:
    """Yield changes that are each within bounds, many times, and then a read of what they left."""
    values = {str(n): n for n in range(MOST_VALUES - 100)}
    patch = Request("PATCH", f"{SESSIONS}/{{id}}", json.dumps({"stateDelta": values}).encode())
    read = Request("GET", f"{SESSIONS}/{{id}}", b"")
    yield Case("20 PATCHes of one key each, then GET", [patch] * 20 + [read])
    others = [
        patch._replace(body=json.dumps({"stateDelta": {str(n): list(values)}}).encode())
        for n in range(20)
    ]
    yield Case("20 PATCHes of other keys, then GET", [*others, read])
    events = [
        {"author": "user", "content": {"role": "user", "parts": [{"text": str(n)}]}}
        for n in range(MOST_ENTRIES)
    ]
    create = Request("POST", SESSIONS, json.dumps({"events": events}).encode())
    yield Case("create of 1000 messages", [create])
    runs_of = runs(b",".join([b'{"text":"x"}'] * (MOST_ENTRIES - 1)))
    yield Case("20 runs of 999 parts, then GET", [*runs_of[:1] * 20, read])
    yield Case("10 detached runs of 999 parts, then GET", [*runs_of[3:] * 10, read])
    yield Case("the list of sessions, after all", [Request("GET", SESSIONS, b"")])


# What says that it is something else.


def disguised() -> Iterator[Case]:
    """Yield large bodies that bounds may overlook."""
    parts = _RUN % b",".join([b"{}"] * 400_000)
    events = b'{"events":[' + b",".join([b"1"] * 400_000) + b"]}"
    for kind in ("multipart/x", "text/plain", "application/octet-stream", ""):
        headers = {"Content-Type": kind} if kind else {}
        for path, body in (("/run", parts), ("/run_sse", parts), (SESSIONS, events)):
            yield Case(f"{path} as {kind or 'nothing'}", [Request("POST", path, body, headers)])
            for coded in ("utf-16", "utf-32", "utf-8-sig"):
                less = body[:400_000].decode().encode(coded)
                name = f"{path} as {kind or 'nothing'} in {coded}"
                yield Case(name, [Request("POST", path, less, headers)])
    detached = {"Content-Type": "multipart/x", "Lapse-Detach": "true"}
    yield Case("/run_sse detached as multipart/x", [Request("POST", "/run_sse", parts, detached)])


# Documents that fill what a schema has.

Place = list[str]


def slowest_documents(most: int, *, quick: bool) -> Iterator[Case]:
    """Yield the documents that pydantic takes longest for, of each route."""
    warnings.simplefilter("ignore")
    from google.adk.cli.api_server import (
        CreateSessionRequest,
        RunAgentRequest,
        SaveArtifactRequest,
    )

    run_base = {"appName": APP, "userId": USER, "sessionId": "{id}"}
    roots: list[tuple[Any, str, Any]] = [
        (RunAgentRequest, "newMessage", lambda filled: run_base | {"newMessage": filled}),
        (
            CreateSessionRequest,
            "events",
            lambda filled: {"events": filled * (MOST_VALUES // MOST_TYPED - 1)},
        ),
        (SaveArtifactRequest, "artifact", lambda filled: {"filename": "f", "artifact": filled}),
    ]
    for model, field, whole in roots:
        scored: list[tuple[float, int, str, bytes]] = []
        tries = itertools.count()
        for name, filled in itertools.islice(_fillings(model, field), 400 if quick else None):
            document = json.dumps(whole(filled)).encode()
            took = _validation(model, json.loads(document))
            heapq.heappush(scored, (took, next(tries), name, document))
            if len(scored) > most:
                heapq.heappop(scored)
        for _, _, name, document in scored:
            yield from _sent(field, name, document)


def _sent(field: str, name: str, document: bytes) -> Iterator[Case]:
    if field == "events":
        yield Case(f"create {name}", [Request("POST", SESSIONS, document)])
    elif field == "artifact":
        path = f"{SESSIONS}/{{id}}/artifacts"
        yield Case(f"artifact {name}", [Request("POST", path, document)])
    else:
        yield Case(f"/run {name}", [Request("POST", "/run", document)])
        detached = _JSON | {"Lapse-Detach": "true"}
        yield Case(f"/run_sse detached {name}", [Request("POST", "/run_sse", document, detached)])


def _validation(model: Any, document: Any) -> float:
    began = time.thread_time()
    try:
        model.model_validate(document)
    except Exception as error:  # noqa: BLE001 - whatever its validators raise
        getattr(error, "error_count", int)()
    return time.thread_time() - began


def _fillings(model: Any, field: str) -> Iterator[tuple[str, Any]]:
    """Yield what a field may be filled with: each container below it, with many of each thing."""
    schema = model.model_json_schema(by_alias=True)
    schemas = schema.get("$defs", {})
    start = schema["properties"][field]
    for place, node in _containers(start, schemas, [field], frozenset()):
        for what, thing in _things(node, schemas):
            size = _size(thing)
            many = MOST_ENTRIES if place[-1] in {"parts", "events"} else MOST_TYPED
            count = max(1, min(many, (MOST_TYPED - 30) // size))
            if node.get("type") == "array":
                filled: Any = [thing] * count
            else:
                filled = {f"k{n}": thing for n in range(count)}
            yield f"{'.'.join(place)}: {count} {what}", _wrapped(filled, place[1:])


def _containers(
    node: Any, schemas: Any, place: Place, seen: frozenset[str]
) -> Iterator[tuple[Place, Any]]:
    for one in (node, *node.get("anyOf", ())):
        name = one.get("$ref", "").rpartition("/")[2]
        if name:
            if name in seen or len(place) > 7:
                continue
            yield from _containers(schemas[name], schemas, place, seen | {name})
            continue
        if one.get("type") == "array":
            yield place, one
            yield from _containers(one.get("items", {}), schemas, [*place, "[]"], seen)
        elif one.get("type") == "object":
            yield place, one
            if isinstance(one.get("additionalProperties"), dict):
                inner = one["additionalProperties"]
                yield from _containers(inner, schemas, [*place, "{}"], seen)
            for name, inner in one.get("properties", {}).items():
                yield from _containers(inner, schemas, [*place, name], seen)


def _things(node: Any, schemas: Any) -> Iterator[tuple[str, Any]]:
    yield from (("1", 1), ('""', ""), ("{}", {}), ("[]", []), ("null", None), ("{zz}", {"zz": 1}))
    inner = node.get("items") or node.get("additionalProperties")
    if not isinstance(inner, dict):
        return
    for one in (inner, *inner.get("anyOf", ())):
        properties = schemas.get(one.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
        if properties:
            yield "all wrong", {name: [1] for name in properties}
            yield "all objects", {name: {} for name in properties}
            yield "all null", dict.fromkeys(properties)
            yield "all empty", {name: _empty(of) for name, of in properties.items()}


def _empty(node: Any) -> Any:
    kinds = {one.get("type") for one in (node, *node.get("anyOf", ()))}
    for kind, value in (("array", []), ("string", ""), ("integer", 0), ("number", 0.5)):
        if kind in kinds:
            return value
    return {}


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    return 1


def _wrapped(filled: Any, place: Place) -> Any:
    for step in reversed(place):
        match step:
            case "[]":
                filled = [filled]
            case "{}":
                filled = {"k": filled}
            case _:
                filled = {step: filled}
    return filled
