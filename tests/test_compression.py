import bz2
import gzip
from collections.abc import Callable

import pytest
from backports import zstd

from sparkify.compression import UnreadableError, decompress

TEXT = b'{"a": 1}\n' * 1000


@pytest.mark.parametrize("name", ["a.json", "a.gz.json", "a", ".json", "gz"])
def test_a_file_whose_name_names_no_compression_is_as_it_is(name):
    assert decompress(name, TEXT) == TEXT


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstd.compress,
    "json.GZ": gzip.compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_is_decompressed_also_if_it_has_several_parts(suffix):
    part = COMPRESS[suffix](TEXT)
    assert decompress(f"folder.d/a.{suffix}", part) == TEXT
    assert decompress(f"folder.d/a.{suffix}", part + part) == TEXT + TEXT


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: TEXT, lambda whole: whole[5:]])
def test_a_file_that_is_cut_or_not_what_its_name_says_is_unreadable(suffix, damage):
    with pytest.raises(UnreadableError, match="its end is missing"):
        decompress(f"a.{suffix}", damage(COMPRESS[suffix](TEXT)))
