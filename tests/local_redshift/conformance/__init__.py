"""What Amazon documents, as data: :mod:`tests.local_redshift.test_conformance` says how it is read."""

from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """YAML with ``!decimal`` and ``!time``, for values that YAML would take for floats and for texts."""


Loader.add_constructor("!decimal", lambda loader, node: Decimal(node.value))
Loader.add_constructor("!time", lambda loader, node: time.fromisoformat(node.value))
GROUPS: dict[str, dict[str, Any]] = {
    path.stem: yaml.load(path.read_text(), Loader) for path in sorted(Path(__file__).parent.glob("*.yaml"))
}
