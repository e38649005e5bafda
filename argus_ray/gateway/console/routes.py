"""GET /, its files, and /docs. Open: they hold nothing of anybody; what they show comes by the API, with a token."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from argus_ray.gateway.console import built
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.http.prefix import outer_prefix
from argus_ray.gateway.http.problems import RouteNotFound

router = APIRouter(include_in_schema=False)

#: Nothing comes from elsewhere, nothing is inline, and no text becomes markup.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
#: Swagger UI sets styles of its own, shows pictures that it carries with it, and makes markup of descriptions.
DOCS_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_NOT_BUILT = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>Argus</title>
<p>The page for people was not built on this head: run <code>scripts/make-console</code> there, and restart the service.
<p>All else works: the <a href="{prefix}/openapi.json">HTTP API</a> and the command
<a href="{prefix}/argus.pyz">argus</a>.</html>
"""


@router.get("/")
async def console(request: Request) -> Response:
    """The console: one page for all that it shows, since what it shows stands behind the `#` of its address."""
    return await _page(request, "index.html", CSP)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """/openapi.json, shown by Swagger UI."""
    return await _page(request, "docs.html", DOCS_CSP)


@router.get("/console/{name}")
async def asset(request: Request, name: str) -> Response:
    try:
        found = (await run_in_threadpool(built.build)).assets[name]
    except (built.NotBuilt, KeyError):
        # Also of an older build: a page that was loaded before an upgrade asks for these, and loads itself anew.
        raise RouteNotFound("The console of this version has no such file.") from None
    headers = {"Vary": "Accept-Encoding"}
    headers["Cache-Control"] = "public, max-age=31536000, immutable" if found.is_immutable else "no-cache"
    content = found.plain
    if _takes_gzip(request):
        content = found.gzipped
        headers["Content-Encoding"] = "gzip"
    gateway: GatewayParts = request.app.state.gateway
    address = gateway.address_of(request.scope)
    return gateway.open_answers.answer(request, address, content, headers, found.media_type)


async def _page(request: Request, name: str, csp: str) -> Response:
    prefix = outer_prefix(request.scope, request.app.state.gateway.trusted)
    try:
        text = (await run_in_threadpool(built.build)).page(name, prefix)
    except built.NotBuilt:
        text = _NOT_BUILT.format(prefix=prefix)
    return Response(text, 200, {"Content-Security-Policy": csp}, "text/html; charset=utf-8")


def _takes_gzip(request: Request) -> bool:
    for each in ",".join(request.headers.getlist("accept-encoding")).split(","):
        coding, _, weight = each.strip().lower().partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
