"""The files that pages load: style sheet, script and pictures, which are for everybody."""

from pathlib import PurePath

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.console.pages import MEDIA_TYPES, ROOT, pages_of
from api.http.work import Work, WorkRoute, does

router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=WorkRoute)


@router.get("/static/{version}/{name}")
@does(Work.READ)
def load_file(request: Request, version: str, name: str) -> Response:
    """Give a file, to be kept for good: another version of it has another address."""
    pages = pages_of(request)
    if name not in pages.files or version != pages.files_version:
        raise HTTPException(404, "there is no such file")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    media_type = MEDIA_TYPES[PurePath(name).suffix]
    return Response(pages.files[name], headers=headers, media_type=media_type)
