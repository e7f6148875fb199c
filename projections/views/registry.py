"""All views; a new view needs only its own file and a line here."""

from domain.errors import ProjectionNotFound
from projections.views import auth_lookup, entries, key_list, key_versions
from projections.views.view import View

VIEWS = (key_list.VIEW, auth_lookup.VIEW, entries.VIEW, key_versions.VIEW)

WRITTEN = {view.name: view.written for view in VIEWS}
"""What a server writes to the tables of the views, as ``GRANT`` takes it."""


def view_named(name: str) -> View:
    """Return a view by name.

    Raises:
        ProjectionNotFound: there is no view of this name.
    """
    for view in VIEWS:
        if view.name == name:
            return view
    message = f"there is no projection {name[:60]!r}: use {', '.join(v.name for v in VIEWS)}"
    raise ProjectionNotFound(message)
