"""
What Amazon MWAA takes: ``dags/``, ``plugins.zip`` and ``requirements.txt``; of what git tracks.

MWAA has no place for ``include/``: it goes into ``plugins.zip``, which MWAA unpacks as its plugins folder
(https://docs.aws.amazon.com/mwaa/latest/userguide/configuring-dag-import-plugins.html).
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile, ZipInfo

REPOSITORY = Path(__file__).resolve().parents[2]


def package(target: Path) -> None:
    """
    Write the bundle, the same bytes for the same commit: with the commit's date, no owner and no compression.

    :param target: the folder to write to; what it holds of an older bundle is removed
    """
    shutil.rmtree(target, ignore_errors=True)
    committed = time.gmtime(int(_git("log", "-1", "--format=%ct")))
    for name in _tracked("dags"):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, copy)
    with ZipFile(target / "plugins.zip", "w") as archive:
        for name in _tracked("plugins", ":(glob)include/**/*.sql", ":(glob)include/**/*.yaml"):
            entry = ZipInfo(name.removeprefix("plugins/"), date_time=committed[:6])
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (REPOSITORY / name).read_bytes())
    shutil.copyfile(Path(__file__).with_name("requirements.txt"), target / "requirements.txt")


def _tracked(*paths: str) -> list[str]:
    return sorted(_git("ls-files", "-z", "--", *paths).rstrip("\0").split("\0"))


def _git(*command: str) -> str:
    return subprocess.run(
        ["git", *command], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    package(Path(sys.argv[1]))
