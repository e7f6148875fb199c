"""``keyledger keys``: create, show, change and revoke keys."""

import typer

from api.command_line import key_changes, key_queries

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("create")(key_changes.create)
app.command("list")(key_queries.list_)
app.command("show")(key_queries.show)
app.command("history")(key_queries.history)
app.command("update")(key_changes.update)
app.command("rotate")(key_changes.rotate)
app.command("revoke")(key_changes.revoke)


@app.callback()
def keys() -> None:
    """Create, list, show, update, rotate and revoke keys."""
