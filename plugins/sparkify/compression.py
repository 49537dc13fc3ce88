"""The content of files that are compressed, as the suffix of their name says."""

import bz2
import gzip
import os
import zlib


class UnreadableError(Exception):
    """A file is not what its name says, or its end is missing."""


def decompress(name: str, content: bytes) -> bytes:
    """
    Return a file's data.

    :param name: the file's name or key; ``.gz``, ``.bz2`` and ``.zst``, in any case, say how it is compressed
    :param content: the file's bytes
    :return: the bytes as they were before they were compressed; those of any other file as they are
    :raises UnreadableError: if the content is not what the suffix says, or its end is missing
    """
    _, suffix = os.path.splitext(name.lower())
    try:
        if suffix == ".gz":
            return gzip.decompress(content)
        if suffix == ".bz2":
            return bz2.decompress(content)
        if suffix == ".zst":
            return _decompress_zstd(content)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise UnreadableError(f"the file is not {suffix}, or its end is missing: {error}") from error
    return content


def _decompress_zstd(content: bytes) -> bytes:
    try:
        from backports import zstd  # in the standard library from Python 3.14 on
    except ImportError as error:
        raise UnreadableError("to read .zst files, install the package backports.zstd") from error
    try:
        return zstd.decompress(content)
    except zstd.ZstdError as error:
        raise UnreadableError(f"the file is not .zst, or its end is missing: {error}") from error
