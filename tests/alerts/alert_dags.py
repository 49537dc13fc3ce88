"""DAGs that fail, each in its own way; only the tests of alerts run them."""

import os
import signal
import time
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import dag, task

from sparkify import compat
from sparkify.alerts import ALERTS, TASK_ALERTS, late_run

SETTINGS: dict[str, Any] = {"start_date": datetime(2018, 11, 1), "default_args": TASK_ALERTS}


@dag(schedule=None, **SETTINGS, **ALERTS)
def alerts_failing():
    @task
    def fail():
        raise ValueError("2 of 24 checks failed")

    fail()


@dag(schedule=None, **SETTINGS, **ALERTS)
def alerts_killed():
    @task
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    die()


@dag(schedule=None, **SETTINGS, **ALERTS, dagrun_timeout=timedelta(seconds=5))
def alerts_timed_out():
    @task
    def sleep():
        time.sleep(60)

    sleep()


@dag(schedule=None, **SETTINGS, **compat.deadline(timedelta(seconds=5), late_run))
def alerts_late():
    @task
    def sleep():
        time.sleep(60)

    sleep()


for make in (alerts_failing, alerts_killed, alerts_timed_out, alerts_late):
    make()
