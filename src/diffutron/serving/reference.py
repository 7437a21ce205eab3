"""A page of the routes, without scripts of others."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>diffutron: routes</title><link rel="stylesheet" href="/style.css">
<main class="reference"><h1>diffutron</h1>
<p>The routes of this server; for machines: <a href="/openapi.json">openapi.json</a>. <a href="/">The page</a>.</p>
{routes}</main></html>
"""


def reference_page(schema: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation.get('description', ''))}</p>{_fields(operation, schema)}")
    return _PAGE.format(routes="\n".join(parts))


def _fields(operation: dict[str, Any], schema: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return ""
    name = content["schema"]["$ref"].rsplit("/", 1)[1]
    body = schema["components"]["schemas"][name]
    needed = set(body.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' *' if field in needed else ''}</td><td>{escape(_kind(told))}</td>"
        f"<td>{escape(json.dumps(told['default']) if 'default' in told else '')}</td>"
        f"<td>{escape(told.get('description', ''))}</td></tr>"
        for field, told in body["properties"].items()
    )
    return f"<table><tr><th>field</th><th>type</th><th>default</th><th></th></tr>{rows}</table>"


def _kind(told: dict[str, Any]) -> str:
    if "anyOf" in told:
        return " or ".join(_kind(each) for each in told["anyOf"])
    if "$ref" in told:
        return str(told["$ref"]).rsplit("/", 1)[1]
    if "enum" in told or "const" in told:
        return ", ".join(map(json.dumps, told.get("enum", [told.get("const")])))
    kind = str(told.get("type", "any"))
    limits = [f"{sign}{told[name]}" for name, sign in (
        ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"),
    ) if name in told]  # fmt: skip
    of = f" of {_kind(told['items'])}" if kind == "array" and "items" in told else ""
    return " ".join([kind + of, *limits])
