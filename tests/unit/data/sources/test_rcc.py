"""Qt resource archives, built here from the description of the format."""

import pytest

from hpclcae.data.sources import rcc
from tests.support.rcc import build

FILES = {"a.txt": b"plain", "deep/er/b.bin": bytes(range(256)) * 4, "deep/ü.txt": b""}


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("compress", [False, True])
def test_names_and_bytes(version, compress):
    assert dict(rcc.members(build(FILES, version, compress))) == FILES


@pytest.mark.parametrize("content, message", [
    (b"", "not a readable"), (b"PK\x03\x04" + bytes(100), "does not start like"),
    (build(FILES)[:-300], "readable"),
    (build(FILES, version=1).replace(b"qres\0\0\0\1", b"qres\0\0\0\4"), "version 1 to 3"),
    (build({"a": b"x"}, compress=False, flag=4), "zstd"),
    (build({"a": b"x" * 50}, compress=False, flag=1), "readable")])
def test_damaged(content, message):
    with pytest.raises(ValueError, match=message):
        list(rcc.members(content))
