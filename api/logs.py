"""Logs: structured lines on standard error, uvicorn's and the libraries' among them."""

import io
import logging
import sys
from typing import Literal

import structlog

from domain.token_text import hide_tokens


def configure_logs(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Write every log line to standard error, in one form.

    Tracebacks are written without the values of variables, which may be secrets.
    """
    # It is `None` for a process that was started without one.
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    text = form == "text" or (form == "auto" and on_terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        without_tokens,
    ]
    renderer: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=on_terminal,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if text
        else [structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # It tells of each step of a migration, and of its plug-ins at each.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It would write paths and queries, where somebody may have put a token by mistake.
    logging.getLogger("uvicorn.access").disabled = True


def log_to_stderr() -> None:
    """Write the log lines of a command to standard error; standard output is for its result."""
    structlog.reset_defaults()
    structlog.configure(
        logger_factory=lambda *_arguments: structlog.PrintLogger(sys.stderr or io.StringIO())
    )


def without_tokens(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Replace each token in a log line, tracebacks included.

    No code writes a token into a log line; but the message of an exception may quote what somebody
    has sent, or a path.
    """
    return {
        name: "\n".join(map(hide_tokens, value.split("\n"))) if isinstance(value, str) else value
        for name, value in line.items()
    }
