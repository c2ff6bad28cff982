"""Qt resource archives, built from the description of the format."""
import struct
import zlib


def build(files, version=1, compress=True, flag=None):
    """An archive of the given files: nodes breadth first, then data, then names."""
    folders = sorted({"/".join(path.split("/")[:i]) for path in files
                      for i in range(path.count("/") + 1)} - {""})
    nodes = [""]
    children = {}
    for parent in nodes:  # grows while it is read
        below = sorted(p for p in [*files, *folders] if p.rpartition("/")[0] == parent)
        children[parent] = (len(below), len(nodes))
        nodes += below
    data, names, tree = b"", b"", b""
    for path in nodes:
        name = path.rpartition("/")[2]
        at = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if path in files:
            payload = files[path]
            if compress:
                payload = struct.pack(">I", len(payload)) + zlib.compress(payload)
            tree += struct.pack(">IHHHI", at, compress if flag is None else flag, 0, 0, len(data))
            data += struct.pack(">I", len(payload)) + payload
        else:
            tree += struct.pack(">IHII", at, 2, *children[path])
        tree += bytes(8) if version > 1 else b""  # time of the last change
    head = 20 if version < 3 else 24
    return (b"qres" + struct.pack(">4I", version, head, head + len(tree), head + len(tree)
                                  + len(data)) + bytes(head - 20) + tree + data + names)
