"""Logs: structured lines on standard error, including those of uvicorn and other libraries."""

import io
import logging
import sys
from typing import Final, Literal

import structlog

from domain.token_text import hide_tokens


def configure_logs(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Write every log line to standard error, in one format.

    Tracebacks do not show values of variables, which may be secrets.
    """
    # `None` if the process was started without standard error.
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    text = form == "text" or (form == "auto" and on_terminal)
    renderer = _as_text(on_terminal) if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*_EACH_LINE, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_EACH_LINE,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Alembic logs each step of a migration, and its plug-ins at each start.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It would log paths and queries, which may contain a token by mistake.
    logging.getLogger("uvicorn.access").disabled = True


def log_to_stderr() -> None:
    """Write a command's log lines to standard error; standard output has its result."""
    structlog.configure(
        processors=[*_EACH_LINE, _as_text(sys.stderr is not None and sys.stderr.isatty())],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=lambda *_arguments: structlog.PrintLogger(sys.stderr or io.StringIO()),
        cache_logger_on_first_use=False,
    )


def _as_text(on_terminal: bool) -> structlog.typing.Processor:  # noqa: FBT001 - its only argument
    return structlog.dev.ConsoleRenderer(
        colors=on_terminal, exception_formatter=structlog.dev.plain_traceback
    )


def without_tokens(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Hide tokens in a log line, including tracebacks.

    No code logs a token, but the message of an exception may quote a request or a path.
    """
    return {
        name: "\n".join(map(hide_tokens, value.split("\n"))) if isinstance(value, str) else value
        for name, value in line.items()
    }


# A traceback becomes plain text before a renderer sees it: structlog's own shows local variables.
_EACH_LINE: Final[list[structlog.typing.Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    without_tokens,
]
