"""Finished commands, and ways to run one."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CTRL_C = "\x03"
COMMAND = str(Path(sys.executable).with_name("keyledger"))


@dataclass(frozen=True)
class Ended:
    """The output and exit status of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(self.out)

    @property
    def error(self) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(self.err)


Run = Callable[..., Ended]
