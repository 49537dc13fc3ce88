"""One run after another over a bucket: what the tests of runs share."""

import json
from typing import Any

from tests.pipeline import Pipeline

PREFIXES = {"sparkify_log_data": "s3://runs/log_data/", "sparkify_song_data": "s3://runs/song_data/"}
EVENT: dict[str, Any] = {
    "artist": "Elena",
    "auth": "Logged In",
    "firstName": "Lily",
    "gender": "F",
    "itemInSession": 0,
    "lastName": "Koch",
    "length": 269.58322,
    "level": "paid",
    "location": "Chicago",
    "method": "PUT",
    "page": "NextSong",
    "registration": 1541048010796.0,
    "sessionId": 818,
    "song": "Setanta matins",
    "status": 200,
    "ts": 1542837407796,
    "userAgent": "Mozilla",
    "userId": "15",
}
SONG = {
    "num_songs": 1,
    "artist_id": "AR1",
    "artist_latitude": None,
    "artist_longitude": None,
    "artist_location": "",
    "artist_name": "Elena",
    "song_id": "SO1",
    "title": "Setanta matins",
    "duration": 269.58322,
    "year": 0,
}
OTHER_SONG = SONG | {"song_id": "SO9", "title": "Another"}


class Runs:
    """A bucket of its own, and one run after another over it."""

    def __init__(self, s3):
        self.s3, self.pipeline, self.count, self.variables = s3, Pipeline(), 0, dict(PREFIXES)

    def put(self, key, *objects):
        self.s3.load_string("\n".join(map(json.dumps, objects)), key, "runs", replace=True)

    def __call__(self, **params):
        self.count += 1
        return self.pipeline.run(f"run-{self.count}", variables=self.variables, params=params)


def asked(warehouse):
    (count,) = warehouse.get_first("SELECT COUNT(*) FROM local_statements")
    (connections,) = warehouse.get_first("SELECT COUNT(*) FROM local_connections")
    return count, connections
