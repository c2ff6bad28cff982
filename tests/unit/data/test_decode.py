"""Decoding real files of every format and oddity; compared with the pixels that went in."""
import struct
import sys
import warnings
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from hpclcae.data.decode import MAX_PIXELS, Undecodable, decode
from tests.support.pictures import encode

ROWS, COLS = 40, 60
ROW, COL = np.mgrid[:ROWS, :COLS]
RAMP = np.stack([ROW * 6, COL * 4, (ROW + COL) * 2], axis=-1).astype(np.uint8)
DEEP = (ROW * 1000 + COL * 400).astype(np.uint16)  # 16 bits
ORIENTATION = 0x0112


def error(pixels, expected):
    assert pixels.dtype == np.uint8 and pixels.shape == expected.shape
    return np.abs(pixels.astype(int) - expected.astype(int)).max()


@pytest.mark.parametrize("file_format, tolerance",
                         [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("PPM", 0), ("TGA", 0),
                          ("JPEG2000", 0), ("JPEG", 12), ("WEBP", 14), ("GIF", 18)])
def test_formats(file_format, tolerance):
    picture = decode(encode(RAMP, file_format))
    assert error(picture.pixels, RAMP) <= tolerance and picture.original == (ROWS, COLS)
    assert picture.notes == (("palette to RGB",) if file_format == "GIF" else ())


def test_from_a_path(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(RAMP, "PNG"))
    assert error(decode(tmp_path / "a.png").pixels, RAMP) == 0


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk(file_format):
    picture = decode(encode(Image.fromarray(RAMP).convert("CMYK"), file_format))
    assert error(picture.pixels, RAMP) <= 3 and picture.notes == ("CMYK to RGB",)


def test_palette_bilevel_and_ycc():
    assert error(decode(encode(Image.fromarray(RAMP).quantize(256), "PNG")).pixels, RAMP) <= 18
    bilevel = Image.fromarray(((ROW + COL) % 2 * 255).astype(np.uint8)).convert("1")
    assert error(decode(encode(bilevel, "PNG")).pixels[:, :, 0], (ROW + COL) % 2 * 255) == 0
    ycc = encode(Image.fromarray(RAMP).convert("YCbCr"), "TIFF")
    if int(PIL.__version__.partition(".")[0]) >= 13:
        assert error(decode(ycc).pixels, RAMP) <= 3
    else:  # it cannot read them, and says so
        with pytest.raises(Undecodable, match="damaged"):
            decode(ycc)


@pytest.mark.parametrize("content, white", [
    (encode(DEEP, "PNG"), 65535), (encode(DEEP, "TIFF"), 65535),
    (b"P5 60 40 65535\n" + DEEP.astype(">u2").tobytes(), 65535),
    (b"P5 60 40 4095\n" + (DEEP // 16).astype(">u2").tobytes(), 65535)])
def test_sixteen_bits_are_scaled_not_clipped(content, white):
    picture = decode(content)
    assert np.abs(picture.pixels - (DEEP / white * 255)[:, :, np.newaxis]).max() < 0.6
    assert picture.notes == ("16 bits to 8",)


def test_sixteen_bits_with_zero_for_white():
    pixels = decode(encode(DEEP, "TIFF", tiffinfo={262: 0})).pixels
    assert np.abs(255 - pixels - (DEEP / 257)[:, :, np.newaxis]).max() < 0.6


@pytest.mark.parametrize("wide", [DEEP.astype(np.float32), DEEP.astype(np.int32)])
def test_pixels_without_a_range_are_refused(wide):
    with pytest.raises(Undecodable, match="pixels without a defined range") as caught:
        decode(encode(wide, "TIFF"))
    assert caught.value.reason == "pixels without a defined range"
    assert "TIFF of mode" in caught.value.detail


def test_transparency_is_put_on_mid_grey():
    alpha = np.zeros((ROWS, COLS), np.uint8)
    alpha[:, 20:] = 128
    alpha[:, 40:] = 255
    expected = np.round((RAMP * (alpha / 255)[..., np.newaxis] + 128
                         * (1 - alpha / 255)[..., np.newaxis]))
    rgba = np.dstack([RAMP, alpha])
    for file_format in ("PNG", "TIFF"):
        picture = decode(encode(rgba, file_format))
        assert error(picture.pixels,
                     expected) <= 1 and picture.notes == ("transparency on mid-grey",)
    picture = decode(encode(Image.fromarray(np.dstack([RAMP[..., 0], alpha])), "PNG"))
    assert error(picture.pixels[..., 0],
                 np.round(RAMP[..., 0] * (alpha / 255) + 128 * (1 - alpha / 255))) <= 1
    palette = Image.fromarray(RAMP).quantize(16)
    index = np.asarray(palette)
    pixels = decode(encode(palette, "PNG", transparency=int(index[5, 5]))).pixels
    np.testing.assert_array_equal((pixels == 128).all(axis=2), index == index[5, 5])


def test_opaque_alpha_changes_nothing():
    picture = decode(encode(np.dstack([RAMP, np.full((ROWS, COLS), 255, np.uint8)]), "PNG"))
    assert error(picture.pixels, RAMP) == 0 and picture.notes == ()


#: What a camera stores for a picture that is to look like `upright`, by the value of the tag.
STORED = {1: lambda u: u, 2: lambda u: u[:, ::-1], 3: lambda u: u[::-1, ::-1], 4: lambda u: u[::-1],
          5: lambda u: u.swapaxes(0, 1), 6: lambda u: np.rot90(u),
          7: lambda u: np.rot90(u, 2).swapaxes(0, 1), 8: lambda u: np.rot90(u, 3)}


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("file_format, tolerance, options", [
    ("PNG", 0, {}), ("JPEG", 12, {}), ("TIFF", 0, {}), ("WEBP", 0, {"lossless": True}),
    ("AVIF", 12, {"quality": 95})])
def test_exif_orientation(tag, file_format, tolerance, options):
    exif = Image.Exif()
    exif[ORIENTATION] = tag
    picture = decode(encode(np.ascontiguousarray(STORED[tag](RAMP)), file_format, exif=exif,
                            **options))
    assert error(picture.pixels, RAMP) <= tolerance and picture.original == (ROWS, COLS)
    assert picture.notes == (("turned by its EXIF tag",) if tag > 1 else ())


def test_of_several_frames_the_first():
    frames = [Image.fromarray(RAMP), Image.new("RGB", (COLS, ROWS))]
    for file_format, tolerance in (("PNG", 0), ("GIF", 18), ("TIFF", 0), ("MPO", 12)):
        picture = decode(encode(frames[0], file_format, save_all=True, append_images=frames[1:]))
        assert error(picture.pixels,
                     RAMP) <= tolerance and "first of several frames" in picture.notes


def test_large_jpeg_is_decoded_smaller_but_large_enough():
    large = np.kron(RAMP, np.ones((20, 20, 1), np.uint8))
    picture = decode(encode(large, "JPEG", quality=95), at_least=150)
    assert picture.original == (800, 1200) and picture.pixels.shape == (200, 300, 3)
    expected = large.reshape(200, 4, 300, 4, 3).mean(axis=(1, 3))
    assert np.abs(picture.pixels - expected).mean() < 2
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert decode(encode(large, "JPEG", exif=exif), at_least=150).original == (1200, 800)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_truncated(file_format, kept):
    content = encode(np.random.default_rng(0).integers(0, 256, RAMP.shape, dtype=np.uint8),
                     file_format)
    with pytest.raises(Undecodable) as caught:
        decode(content[:int(kept * len(content))])
    assert caught.value.reason in ("damaged", "not a picture")


@pytest.mark.parametrize("content", [b"", b"hello, I am a text\n",
                                     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
                                     b"<svg xmlns='http://www.w3.org/2000/svg'/>", bytes(1000)])
def test_no_picture(content):
    with pytest.raises(Undecodable, match="not a picture") as caught:
        decode(content)
    assert "\n" not in str(caught.value)


def test_decompression_bombs_are_refused_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in (13_000, 30_000):
            assert side ** 2 > MAX_PIXELS
            bomb = b"P4 %d %d\n" % (side, side) + bytes(10)
            with pytest.raises(Undecodable, match="too many pixels"):
                decode(bomb)


def test_random_damage_never_escapes():
    generator = np.random.default_rng(0)
    outcomes = set()
    for file_format in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "TGA", "JPEG2000"):
        content = encode(RAMP, file_format)
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(5):
                damaged[generator.integers(min(200, len(damaged)))] = generator.integers(256)
            try:
                picture = decode(bytes(damaged))
                assert picture.pixels.dtype == np.uint8 and picture.pixels.shape[2:] == (3,)
                outcomes.add("decoded")
            except Undecodable as refusal:
                outcomes.add(refusal.reason)
    assert {"decoded", "damaged", "not a picture"} <= outcomes


def chunk(kind, data, damage=0):
    return (struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data) ^ damage))


def png(row, cols, bits, colour, *more):
    """A PNG of four equal rows; `colour` as in its header: 0 grey, 2 red, green and blue."""
    return b"".join([b"\x89PNG\r\n\x1a\n",
                     chunk(b"IHDR", struct.pack(">IIBBBBB", cols, 4, bits, colour, 0, 0, 0)), *more,
                     chunk(b"IDAT", zlib.compress((b"\0" + row) * 4)), chunk(b"IEND", b"")])


@pytest.mark.parametrize("row, bits, clear, expected", [
    (b"\x50", 1, 1, [0, 128, 0, 128]), (b"\x1b", 2, 1, [0, 128, 170, 255]),
    (b"\x03\x7f", 4, 3, [0, 128, 119, 255]), (b"\x03\x7f", 4, 15, [0, 51, 119, 128]),
    (bytes([0, 3, 100, 255]), 8, 3, [0, 128, 100, 255]),
    (struct.pack(">4H", 0, 1000, 1001, 65535), 16, 1000, [0, 128, 4, 255]),
    (struct.pack(">4H", 0, 1000, 1001, 65535), 16, 65535, [0, 4, 4, 128])])
def test_the_transparent_grey_of_a_png_at_any_depth(row, bits, clear, expected):
    picture = decode(png(row, 4, bits, 0, chunk(b"tRNS", struct.pack(">H", clear))))
    assert picture.pixels[0, :, 0].tolist() == expected
    assert "transparency on mid-grey" in picture.notes


def test_a_transparent_colour_of_16_bits_is_refused():
    row = struct.pack(">6H", 1000, 1000, 1000, 1001, 1001, 1001)
    assert decode(png(row, 2, 16, 2)).pixels[0, :, 0].tolist() == [3, 3]
    with pytest.raises(Undecodable, match="transparency of a colour of 16 bits"):
        decode(png(row, 2, 16, 2, chunk(b"tRNS", struct.pack(">3H", 1000, 1000, 1000))))


LONG = zlib.compress(b"x" * 3_000_000)


@pytest.mark.parametrize("more", [
    [chunk(b"zTXt", b"Comment\0\0" + LONG)], [chunk(b"iCCP", b"profile\0\0" + LONG)],
    [chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG)], [chunk(b"tEXt", b"a\0b", damage=1)],
    [chunk(b"zTXt", b"C\0\0" + zlib.compress(b"x" * 1_000_000))] * 70])
def test_a_png_whose_metadata_are_too_large_or_damaged_is_kept(more, tmp_path):
    content = png(bytes([200, 100, 50] * 4), 4, 8, 2, *more)
    (tmp_path / "a.png").write_bytes(content)
    for source in (content, tmp_path / "a.png"):
        picture = decode(source)
        assert (picture.pixels == [200, 100, 50]).all()
        assert picture.notes == ("metadata left out, damaged or too large",)


def test_orientation_outlives_a_long_text():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture = decode(png(bytes(4), 4, 8, 0, chunk(b"eXIf", exif.tobytes()[6:]),
                         chunk(b"zTXt", b"C\0\0" + LONG)))
    assert "turned by its EXIF tag" in picture.notes


@pytest.mark.parametrize("segment", [
    b"Exif\0\0" + b"\xff" * 50, b"Exif\0\0II", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\1" * 30,
    b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\x02\0\x04\0\0\0abcd\0\0\0\0",
    b"MPF\0II*\0\x08\0\0\0\xff\xff\1\1\1\1"])
def test_a_good_jpeg_with_broken_exif_is_kept(segment):
    jpeg = encode(RAMP, "JPEG", quality=95)
    marker = b"\xff\xe2" if segment.startswith(b"MPF") else b"\xff\xe1"
    content = jpeg[:2] + marker + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    assert error(decode(content).pixels, RAMP) <= 12


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"subsampling": 0},
                                     {"restart_marker_rows": 2}])
@pytest.mark.parametrize("at_least", [None, 32])
def test_a_jpeg_that_decodes_only_in_part_is_refused(options, at_least):
    large = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(large).resize((600, 400)))
    grey_below = large.copy()
    grey_below[200:] = 128
    for whole in (encode(large, "JPEG", **options), encode(grey_below, "JPEG", **options)):
        assert decode(whole, at_least).original == (400, 600)
        with pytest.raises(Undecodable, match="JPEG of which a part is missing"):
            decode(whole[:int(0.7 * len(whole))] + b"\xff\xd9", at_least)


def test_signed_tiff_is_refused():
    with pytest.raises(Undecodable, match="pixels without a defined range"):
        decode(encode(RAMP[:, :, 0], "TIFF", tiffinfo={339: 2}))


def test_a_damaged_second_page_does_not_matter():
    frames = [Image.fromarray(RAMP), Image.new("RGB", (COLS, ROWS))]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = decode(content[:-40] + bytes(40))
    assert error(picture.pixels, RAMP) <= 18


def test_heic_is_read_or_named_with_what_reads_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    head = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"
    with pytest.raises(Undecodable, match="HEIC.*pip install 'hpclcae.heif.'"):
        decode(head + bytes(100))
    monkeypatch.undo()
    heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    heif.register_heif_opener()
    for tag in (1, 6, 7):
        exif = Image.Exif()
        exif[ORIENTATION] = tag
        content = encode(np.ascontiguousarray(STORED[tag](RAMP)), "HEIF", quality=95,
                         exif=exif.tobytes())
        assert error(decode(content).pixels, RAMP) <= 12


def test_an_unreadable_file_is_named_as_such(tmp_path):
    with pytest.raises(Undecodable, match="unreadable file"):
        decode(tmp_path / "gone.png")
