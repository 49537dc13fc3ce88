"""
The page's server, which Airflow's API server mounts.

Airflow authenticates none of the requests to a plugin's application
(https://airflow.apache.org/docs/apache-airflow/3.3.0/administration-and-deployment/plugins.html), so this one
does: whoever may see the DAG ``sparkify_etl`` may see the page.
"""

import csv
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.exceptions import AirflowException
from botocore.exceptions import BotoCoreError, ClientError
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from sparkify.advice import IAM_LOGIN, aws_advice, warehouse_advice
from sparkify.errors import error_message, is_database_error, sqlstate
from sparkify.run_notes import DAG_ID
from sparkify.web.questions import ELSE, QUESTIONS, READ_ONLY, Answer, Question, answer
from sparkify.web.runs import last_end, last_runs

STATIC = Path(__file__).with_name("static")
#: Nothing is loaded from other hosts, and no other site shows the page within its own.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
}
#: SQLSTATE of what a user lacks the privilege for (https://www.postgresql.org/docs/current/errcodes-appendix.html).
NOT_PERMITTED = "42501"
ASKS_AS = (
    f"The page asks as the user of the connection '{READ_ONLY}', or of '{ELSE}' where there is none;"
    " analysts, for one, may not read personal data"
)


def require_access(user: GetUserDep) -> None:
    """
    Turn away whoever may not see the DAG.

    :param user: whose token or cookie the request has; without a valid one it does not come so far
    :raises HTTPException: 403
    """
    if not get_auth_manager().is_authorized_dag(method="GET", details=DagDetails(id=DAG_ID), user=user):
        raise HTTPException(403, f"You may not see the DAG {DAG_ID}. Ask Airflow's administrator for it.")


class Values:
    """A value for each parameter of any question, from a request's query."""

    def __init__(
        self,
        range_start: datetime = datetime(1970, 1, 1),
        range_end: datetime = datetime(9999, 1, 1),
        dataset: str = "",
        run: str = "",
        file: str = "",
        reason: str = "",
        page: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    ) -> None:
        self.all: dict[str, Any] = {
            "range_start": _utc(range_start),
            "range_end": _utc(range_end),
            "dataset": dataset,
            "run": run,
            "file": file,
            "reason": reason,
            "page": page,
        }


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


router = APIRouter(dependencies=[Depends(require_access)])


@router.get("/")
def page() -> FileResponse:
    """Return the page."""
    return FileResponse(STATIC / "index.html")


@router.get("/api/runs")
def runs(session: SessionDep) -> list[dict[str, Any]]:
    """Return the pipeline's last runs."""
    return last_runs(session)


@router.get("/api/{name}.csv")
def download(name: str, values: Annotated[Values, Depends()], session: SessionDep) -> Response:
    """Return an answer as a CSV file."""
    _, given = _ask(name, values, session)
    text = io.StringIO()
    csv.writer(text).writerows([given.columns, *given.rows])
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/api/{name}")
def ask(name: str, values: Annotated[Values, Depends()], session: SessionDep) -> dict[str, Any]:
    """Return an answer, with its question."""
    question, given = _ask(name, values, session)
    return {
        "description": question.description,
        "sql": question.sql,
        "columns": given.columns,
        "rows": given.rows,
        "as_of": given.as_of,
    }


def _ask(name: str, values: Values, session: SessionDep) -> tuple[Question, Answer]:
    question = QUESTIONS.get(name)
    if not question:
        raise HTTPException(404, f"There is no question {name}. There are: {', '.join(QUESTIONS)}.")
    relevant = {parameter: values.all[parameter] for parameter in question.parameters}
    try:
        return question, answer(question, relevant, last_end(session))
    except (BotoCoreError, ClientError) as error:
        advice = aws_advice(error, IAM_LOGIN, "the warehouse")
        raise HTTPException(503, f"No login by IAM: {advice}") from error
    except Exception as error:
        if not isinstance(error, AirflowException | OSError) and not is_database_error(error):
            raise
        message = error_message(error)
        if sqlstate(error) == NOT_PERMITTED:
            raise HTTPException(403, f"{message}. {ASKS_AS}") from error
        raise HTTPException(503, ". ".join(filter(None, [message, warehouse_advice(message)]))) from error


async def turned_away(request: Request, error: Exception) -> Response:
    """Lead whoever is not logged in to Airflow's login; anything but the page says so instead."""
    assert isinstance(error, HTTPException)
    if error.status_code == 401 and request.url.path.endswith("/"):
        return RedirectResponse(get_auth_manager().get_url_login(next_url=str(request.url)))
    return PlainTextResponse(str(error.detail), error.status_code)


async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Add the security headers."""
    response = await call_next(request)
    response.headers.update(SECURITY_HEADERS)
    return response


app = FastAPI(openapi_url=None)
app.middleware("http")(add_headers)
app.exception_handler(HTTPException)(turned_away)
app.mount("/static", StaticFiles(directory=STATIC))
app.include_router(router)
