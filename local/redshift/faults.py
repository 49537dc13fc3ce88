"""Faults on demand: a test has a client cut off at a statement of its choice."""

from pathlib import Path
from typing import Literal, cast

FILE_VARIABLE = "LOCAL_REDSHIFT_FAULTS"

Moment = Literal["before", "after"]


class Faults:
    """
    Cuts off whichever client runs the n-th statement from now, as a file asks for.

    The file holds ``before 17`` or ``after 17``; each statement lowers the number, and the one that ends the
    count removes the file. So a test sees whether the fault has hit, and how many statements there were.

    :param file: the file, which need not exist (the environment variable ``LOCAL_REDSHIFT_FAULTS``)
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def next_statement(self) -> Moment | None:
        """Count a statement that is about to run; return when to cut its client off, None if not at all."""
        if not self._file.exists():
            return None
        moment, count = self._file.read_text().split()
        left = int(count) - 1
        if left:
            self._file.write_text(f"{moment} {left}")
            return None
        self._file.unlink()
        return cast(Moment, moment)
