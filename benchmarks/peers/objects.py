"""Fetches objects from S3 with obstore: of the clients that Python has, it spends the least on small ones."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from obstore.store import S3Store

BUCKET = "udacity-dend"
AT_ONCE = 16


def open_bucket(endpoint: str) -> S3Store:
    """
    Return the bucket of the input.

    :param endpoint: the URL of S3
    """
    return S3Store(
        BUCKET,
        endpoint=endpoint,
        region="us-west-2",
        access_key_id="local",
        secret_access_key="local",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


def contents(bucket: S3Store, keys: Iterable[str]) -> list[bytes]:
    """
    Return what some objects hold.

    :param bucket: their bucket
    :param keys: their keys
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda key: bytes(bucket.get(key).bytes()), keys))
