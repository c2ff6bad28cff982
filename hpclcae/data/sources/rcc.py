"""Read Qt resource archives (.rcc): a tree of names and bytes in one big-endian file."""
import struct
import zlib
from collections.abc import Iterator

COMPRESSED, FOLDER, ZSTD = 1, 2, 4  # flags of a node


def members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (path, bytes) of every file in the archive `content`.

    Raises
    ------
    ValueError
        It is not a Qt resource archive, it is damaged, or it uses a compression that is not known
        here.
    """
    try:
        magic, version, tree, data, names = struct.unpack_from(">4s4I", content)
        if magic != b"qres" or not 1 <= version <= 3:
            raise ValueError("it does not start like one of version 1 to 3")
        yield from _walk(content, (tree, 14 if version == 1 else 22), data, names,
                         node=0, folder="")
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"not a readable Qt resource archive: {error}") from error


def _walk(content: bytes, tree: tuple[int, int], data: int, names: int, node: int,
          folder: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files at and below `node`; `tree` is (start, bytes of a node)."""
    start = tree[0] + node * tree[1]
    name_at, flags = struct.unpack_from(">IH", content, start)
    path = f"{folder}/{_name(content, names + name_at)}" if node else ""  # the root has no name
    if flags & FOLDER:
        count, first = struct.unpack_from(">II", content, start + 6)
        for child in range(first, first + count):
            yield from _walk(content, tree, data, names, child, path)
        return
    if flags & ZSTD:
        raise ValueError(f"{path} is compressed with zstd")
    begin = data + struct.unpack_from(">I", content, start + 10)[0]
    size, = struct.unpack_from(">I", content, begin)
    payload = content[begin + 4:begin + 4 + size]
    if len(payload) < size:
        raise ValueError(f"{path} is cut off")
    yield path.lstrip("/"), zlib.decompress(payload[4:]) if flags & COMPRESSED else payload


def _name(content: bytes, start: int) -> str:
    length, = struct.unpack_from(">H", content, start)
    return content[start + 6:start + 6 + 2 * length].decode("utf-16-be")
