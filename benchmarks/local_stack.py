"""The local stack of a benchmark."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import _HOME, REPOSITORY


@contextmanager
def local_stack(*options: str) -> Iterator[None]:
    """
    Start a stack in the tests' folder, and at the end stop it and remove the folder.

    :param options: of ``python -m local up``
    """
    command = [sys.executable, "-m", "local"]
    subprocess.run([*command, "up", *options], cwd=REPOSITORY, check=True)
    try:
        yield
    finally:
        subprocess.run([*command, "down"], cwd=REPOSITORY, check=True)
        shutil.rmtree(_HOME)
