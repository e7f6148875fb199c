"""Previous and next page: a list is read in one direction, and addresses keep the way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.formats.cursors import from_cursor, to_cursor

PAGE_LENGTH = 50
BACK = r"^[0-9]{1,19}(\.[0-9]{1,19})*$"
LONGEST_BACK = 1_000
_MOST_BACK = 90
_SEPARATOR = "."


@dataclass(frozen=True, slots=True)
class Place:
    """The place of one page among the pages of a query.

    Args:
        after: position of the last item of the page before; ``None`` on the first page.
        trail: the same of the pages before, from the second on.
        mark: all that decides which items the pages have.
    """

    after: int | None
    trail: Sequence[int]
    mark: Sequence[str]

    @classmethod
    def read(cls, cursor: str | None, back: str | None, mark: Sequence[str]) -> "Place":
        """Read the place from an address.

        Raises:
            Invalid: the cursor is not valid, or belongs to another query.
        """
        trail = [int(each) for each in back.split(_SEPARATOR)] if back else []
        return cls(from_cursor(cursor, *mark), trail, mark)

    @property
    def first_number(self) -> int | None:
        """Number of the page's first item, counted from 1; ``None`` after very many pages."""
        if self.after is None:
            return 1
        return None if len(self.trail) >= _MOST_BACK else PAGE_LENGTH * (len(self.trail) + 1) + 1

    @property
    def previous(self) -> Mapping[str, str] | None:
        """The parameters of the previous page; ``None`` on the first."""
        if self.after is None:
            return None
        if not self.trail:
            return {}
        *trail, after = self.trail
        return self._parameters(after, trail)

    def next(self, last: int) -> Mapping[str, str]:
        """Return the parameters of the next page.

        Args:
            last: position of this page's last item.
        """
        trail = [] if self.after is None else [*self.trail, self.after]
        return self._parameters(last, trail[-_MOST_BACK:])

    def _parameters(self, after: int, trail: Sequence[int]) -> Mapping[str, str]:
        return {"cursor": to_cursor(after, *self.mark), "back": _SEPARATOR.join(map(str, trail))}
