"""``keyledger serve``: the HTTP server."""

from typing import Annotated

import typer

from api.command_line.local_ledger import checked_settings
from api.command_line.options import DataDir

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on.", show_default="8080")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of server processes.", show_default="1")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Start the server: HTTP API and console."""
    settings = checked_settings(host=host, port=port, workers=workers, data_dir=data_dir)
    # No other command waits for the server's libraries, nor does the list of commands.
    from api.server.server import serve as serve_until_stopped  # noqa: PLC0415

    serve_until_stopped(settings)
