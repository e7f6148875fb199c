"""Refusals of HTTP messages that break a rule of the protocol or exceed a limit."""

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.http.problems import http_problem

_HEADERS = (
    b"x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
)


class Refused(Exception):
    """The server answers with an error and closes the connection.

    Args:
        status: status of the answer.
        detail: what is wrong with the message.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def refusal_bytes(
    refused: Refused,
    default_headers: Iterable[tuple[bytes, bytes]],
    request_id: str,
    *,
    with_body: bool,
) -> bytes:
    """Return the bytes of the answer.

    Args:
        default_headers: headers of every answer, such as the date.
        with_body: whether the answer has a body; an answer to HEAD has none.
    """
    answer = http_problem(refused.status, refused.detail, request_id)
    headers = [*default_headers, *answer.raw_headers, (b"x-request-id", request_id.encode())]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    body = bytes(answer.body) if with_body else b""
    return STATUS_LINE[refused.status] + lines + _HEADERS + body
