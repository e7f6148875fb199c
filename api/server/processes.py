"""The processes of a server, and the signals that stop them."""

import signal
import sys
from contextlib import suppress
from socket import socket

import uvicorn
from uvicorn.supervisors import Multiprocess


def run_until_stopped(config: uvicorn.Config, sockets: list[socket]) -> None:
    """Serve on bound sockets until a signal stops the server.

    Raises:
        SystemExit: the server could not start.
    """
    with suppress(KeyboardInterrupt):
        if config.workers > 1:
            _Workers(config, sockets).run()
            return
        stop_on_hangup()
        server = uvicorn.Server(config)
        server.run(sockets)
        if not server.started:
            sys.exit(1)


def stop_on_hangup() -> None:
    """Make SIGHUP stop this process like SIGTERM, unless it was started with `nohup`."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _signal, _frame: signal.raise_signal(signal.SIGTERM))


class _Workers(Multiprocess):
    """Starts workers, and replaces each one that dies."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        before = signal.getsignal(signal.SIGHUP)
        super().__init__(config, sockets)
        if before is signal.SIG_IGN:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_hup(self) -> None:
        """Stop; uvicorn would restart the workers."""
        self.handle_term()
