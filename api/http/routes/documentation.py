"""``/docs``: the OpenAPI document, to be read and tried out, without anything from elsewhere.

The viewer is Swagger UI, whose files come with the package ``fastapi-offline``.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from api.http.work import Work, WorkRoute, does

router = APIRouter(include_in_schema=False, route_class=WorkRoute)

_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@router.get("/docs")
@does(Work.READ)
def show_the_documentation(request: Request) -> HTMLResponse:
    """Show the doors, each with what it takes and answers."""
    return get_swagger_ui_html(
        openapi_url=request.app.openapi_url,
        title=request.app.title,
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )


@router.get("/docs/{name}")
@does(Work.READ)
async def load_file(name: str) -> Response:
    """Give a file of the viewer."""
    if name not in _MEDIA_TYPES:
        raise HTTPException(404, "there is no such file")
    headers = {"Cache-Control": "public, max-age=3600"}
    return Response(_folder().joinpath(name).read_bytes(), 200, headers, _MEDIA_TYPES[name])


def _folder() -> Traversable:
    return files("fastapi_offline") / "static"
