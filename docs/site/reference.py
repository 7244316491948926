"""Writes the pages of the reference that are made of the code: Python names, commands, routes."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from typer.cli import get_docs_for_click
from typer.core import TyperGroup
from typer.main import get_command

import lapse
import lapse.auth
import lapse.testing
from lapse.cli.main import app

_HERE: Final = Path(__file__).parent
_INTO: Final = _HERE / "generated"
_MODULES: Final = (lapse, lapse.auth, lapse.testing)


def write_reference() -> None:
    """Write the pages; one that stays as it was keeps its time, so that Sphinx reads it once."""
    _INTO.mkdir(exist_ok=True)
    for name, text in (
        ("python.md", _python()),
        ("commands.md", _commands()),
        ("routes.md", _routes()),
    ):
        page = _INTO / name
        if not page.exists() or page.read_text("utf-8") != text:
            page.write_text(text, "utf-8")


def _python() -> str:
    """Return a page of directives, for every public name one."""
    lines = ["# Python", "", "Every public name, and what it promises.", ""]
    seen: set[int] = set()
    for module in _MODULES:
        lines += [f"## `{module.__name__}`", ""]
        for name in module.__all__:
            one = getattr(module, name)
            if id(one) in seen:
                continue
            seen.add(id(one))
            kind = "class" if inspect.isclass(one) else "function" if callable(one) else "data"
            members = kind == "class" and name != "Settings"
            lines += [
                f"### `{name}`",
                "",
                "```{eval-rst}",
                f".. auto{kind}:: {module.__name__}.{name}",
                *(["   :members:"] if members else []),
                "```",
                "",
            ]
    return "\n".join(lines)


def _commands() -> str:
    """Return the help of every command, as Typer writes it."""
    command = get_command(app)
    assert isinstance(command, TyperGroup), "lapse has commands"
    with command.make_context("lapse", [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name="lapse", title="Commands")
    # Typer cuts what a command does after a few words; each has its section.
    return re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?", "", f"{text}\n")


def _routes() -> str:
    """Return the routes of `docs/openapi.json`, each with its parameters and answers."""
    told = json.loads((_HERE.parent / "openapi.json").read_text("utf-8"))
    lines = [
        "# Routes",
        "",
        f"{told['info']['description']} Programs read [openapi.json](../../openapi.json).",
        "",
    ]
    routes = [
        (one["tags"][0], f"{method.upper()} {path}", one)
        for path, methods in told["paths"].items()
        for method, one in methods.items()
    ]
    for tag, of_tag in groupby(sorted(routes, key=itemgetter(0)), itemgetter(0)):
        lines += [f"## {tag.capitalize()}", ""]
        for _, route, one in of_tag:
            lines += [f"### `{route}`", "", one.get("description", ""), ""]
            lines += [*_parameters(one.get("parameters", ())), *_bodies(one)]
    lines += ["## Documents", ""]
    for name, schema in told["components"]["schemas"].items():
        lines += [f"### `{name}`", "", schema.get("description", ""), "", *_fields(schema), ""]
    return "\n".join(lines)


def _parameters(given: Any) -> Iterator[str]:
    if given:
        yield from ("| parameter | in | type | |", "|---|---|---|---|")
        for one in given:
            must = "required" if one.get("required") else ""
            yield f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {must} |"
        yield ""


def _bodies(one: Any) -> Iterator[str]:
    if body := one.get("requestBody"):
        yield f"Body: {_content(body)}."
        yield ""
    for status, answer in one["responses"].items():
        yield f"- {status}: {_content(answer)}"
    yield ""


def _content(body: Any) -> str:
    given = [_type(one.get("schema", {})) for one in body.get("content", {}).values()]
    return ", ".join(filter(None, given)) or body.get("description", "")


def _fields(schema: Any) -> Iterator[str]:
    if values := schema.get("enum"):
        yield ", ".join(f"`{value}`" for value in values)
    elif properties := schema.get("properties"):
        yield from ("| field | type | |", "|---|---|---|")
        for name, one in properties.items():
            text = one.get("description", "").replace("\n", " ").replace("|", "\\|")
            yield f"| `{name}` | {_type(one)} | {text} |"


def _type(schema: Any) -> str:
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if several := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_type(one) for one in several))
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format", kind))
