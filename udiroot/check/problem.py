# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from dataclasses import dataclass

#: shifter, setupRoot or a client fails, or does not do what the line says.
ERROR = "error"
#: It works, but hardly as meant.
WARNING = "warning"
#: Nothing is wrong; a line could go.
NOTE = "note"


@dataclass(frozen=True)
class Problem:
    """One finding: ``line`` counts from 1 and is None for what no line says, ``key`` may be empty; ``message`` says
    what is wrong and what to do."""

    severity: str
    line: int | None
    key: str
    message: str

    def text(self, file: str) -> str:
        """``FILE:LINE: error: key: message``, fit for a terminal: names come from the file."""
        place = file if self.line is None else f"{file}:{self.line}"
        said = f"{self.key}: {self.message}" if self.key else self.message
        return "".join(c if c.isprintable() else "?" for c in f"{place}: {self.severity}: {said}")
