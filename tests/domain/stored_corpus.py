"""Every stored event of every version, from the files of the corpus."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from eventsourcing.persistence import StoredEvent

FOLDER = Path(__file__).parent / "corpus"


def stored_events() -> list[StoredEvent]:
    """Return all stored events in order: first those of v1, then those of v2, and so on."""
    return [stored for events in events_by_file().values() for stored in events]


def events_by_file() -> dict[int, list[StoredEvent]]:
    """Return the stored events of each file, by the number in its name, in order."""
    numbers = sorted(int(file.stem.removeprefix("v")) for file in FOLDER.glob("v*.jsonl"))
    return {number: [*_read(FOLDER / f"v{number}.jsonl")] for number in numbers}


def _read(file: Path) -> Iterator[StoredEvent]:
    for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
        row = json.loads(line)
        yield StoredEvent(
            originator_id=UUID(row["originator_id"]),
            originator_version=row["originator_version"],
            topic=row["topic"],
            state=row["state"].encode(),
        )
