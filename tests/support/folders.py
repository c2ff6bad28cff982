"""Folders and archives of known files."""
import io
import tarfile
import zipfile

FILES = {"b.jpg": b"B", "cats/a.PNG": b"A", "cats/deep/c.webp": b"C", "clip.MP4": b"film",
         "notes.txt": b"text", ".hidden.jpg": b"h", "cats/._a.png": b"AppleDouble",
         ".thumbs/t.jpg": b"hidden"}


def fill(folder, files=FILES):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def make_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path, files=FILES, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
