"""What Airflow keeps of assets between runs."""

import json
from typing import Any


class AssetState(dict[str, Any]):
    """The state of one asset; values go through JSON, as they do on their way into Airflow's database."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        if value is None:
            raise ValueError("Cannot set value as None")
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        """Forget a value."""
        self.pop(key, None)


class AssetStates(dict[str, AssetState]):
    """
    The states of a task's assets, by the assets' names: Airflow's store takes the assets.

    Operators are given it with an Airflow before 3.3, too, which has no such store.
    """

    def __getitem__(self, asset: Any) -> AssetState:
        """Return an asset's state."""
        return super().__getitem__(asset.name)
