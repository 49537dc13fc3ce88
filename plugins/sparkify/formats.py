"""Which objects are data by their name, how COPY has to read them, and what their first bytes show."""

import re

# How a file's name ends, and COPY's option for it
# (https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-file-compression.html).
_DATA = re.compile(r"\.(?:json|jsonl|ndjson)(\.gz|\.bz2|\.zst)?$", re.IGNORECASE)
_OPTIONS = {"": "", ".gz": "GZIP", ".bz2": "BZIP2", ".zst": "ZSTD"}
_SUFFIX = re.compile(r"(\.\w{1,16})?\.\w{1,16}$")

#: How many bytes :func:`describe_content` needs.
HEAD = 1024
_SIGNATURES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "a ZIP archive",
    b"PAR1": "Parquet",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"%PDF": "PDF",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_COMPRESSED = {"GZIP": "gzip", "BZIP2": "bzip2", "ZSTD": "Zstandard"}


def ignored_because(key: str, size: int) -> str:
    """
    Return why an object is no data, empty if it is.

    :param key: its key
    :param size: bytes
    """
    name = key.rpartition("/")[2]
    if not name:
        return "it is a folder marker"
    if name.startswith((".", "_")):
        return "its name begins with . or _"
    if not size:
        return "it is empty"
    if _DATA.search(name):
        return ""
    suffix = _SUFFIX.search(name)
    return f"its suffix is {suffix[0].lower()}" if suffix else "it has no suffix"


def copy_option(key: str) -> str:
    """
    Return COPY's option for the compression that a file's name says, empty if it says none.

    :param key: the key of an object that holds data
    """
    found = _DATA.search(key)
    return _OPTIONS[(found[1] or "").lower()] if found else ""


def describe_content(key: str, head: bytes) -> str:
    """
    Return what is wrong with a file as its first bytes show it, empty if they show nothing.

    :param key: the object's key
    :param head: its first :data:`HEAD` bytes
    """
    named = _COMPRESSED.get(copy_option(key), "")
    found = next((name for signature, name in _SIGNATURES.items() if head.startswith(signature)), "")
    if not found and not named and head.count(b"\0") > len(head) // 4:
        found = "UTF-16 or binary"
    if named:
        return "" if found == named else f"its name says {named}, but its first bytes do not"
    if found:
        return f"its first bytes are {found}, not JSON text in UTF-8"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return "it is one JSON array; COPY reads one JSON object after the other, without commas in between"
    if text and not text.startswith(b"{"):
        return "it does not begin with a JSON object"
    return ""
