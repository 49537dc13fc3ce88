"""What Airflow itself loads of this project, beside the DAGs."""

from collections.abc import Awaitable, Callable
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from sparkify import run_notes
from sparkify.compat import HAS_PAGES

Messages = Callable[..., Awaitable[Any]]


async def page(scope: dict[str, Any], receive: Messages, send: Messages) -> None:
    """
    Serve the page, whose modules are slow to import, and of no use in Airflow's other processes.

    The parameters are ASGI's (https://asgi.readthedocs.io/en/latest/specs/main.html).
    """
    from sparkify.web.app import app

    await app(scope, receive, send)


class SparkifyPlugin(AirflowPlugin):
    """Registers what listens to DAG runs, and the page."""

    name = "sparkify"
    # ruff: disable[RUF012]  Airflow declares no class variables
    listeners: list[object] = [run_notes]
    fastapi_apps: list[object] = (
        [{"name": "Sparkify", "app": page, "url_prefix": "/sparkify"}] if HAS_PAGES else []
    )
    external_views: list[object] = [
        {
            "name": "Sparkify",
            "href": "sparkify/",
            "destination": "nav",
            "url_route": "sparkify",
            "icon": "sparkify/static/icon-light.svg",
            "icon_dark_mode": "sparkify/static/icon-dark.svg",
        }
    ]
    # ruff: enable[RUF012]
