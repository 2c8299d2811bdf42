"""Image files to pixels in the graph: every format against Pillow, orientation, limits, a fuzz."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from unroll.pipelines import image, image_decoding
from unroll.pipelines.image_decoding import all_frames, first_frame, problem

_RNG = np.random.default_rng(0)
# No side is a multiple of 8, and no two rows or columns of blocks are equal.
PICTURE = Image.fromarray(
    _RNG.integers(0, 256, (4, 6, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)[:31, :45]
)
FADING = PICTURE.convert("RGBA")
FADING.putalpha(Image.fromarray(np.linspace(0, 255, 31 * 45).reshape(31, 45).astype("uint8")))
LOSSLESS = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}


def save(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


# One graph for all files: eager operations take a second for each.
_first_frame = tf.function(first_frame, input_signature=[tf.TensorSpec([], tf.string)])


def read(contents: bytes) -> np.ndarray:
    return _first_frame(tf.constant(contents)).numpy().astype(int)


def as_seen(contents: bytes) -> np.ndarray:
    """The pixels that Pillow shows: upright, transparent parts on white."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
    if picture.has_transparency_data and picture.format != "GIF":
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB")).astype(int)


def palette_bmp(depth: int, *, top_down=False, old=False, used=0) -> tuple[bytes, np.ndarray]:
    """A BMP file with a random palette, and its pixels."""
    rng, height, width = np.random.default_rng(depth), 7, 13
    palette = rng.integers(0, 256, (used or 2**depth, 3), np.uint8)
    indices = rng.integers(0, len(palette), (height, width))
    bits = np.unpackbits(indices.astype("uint8")[..., None], axis=-1)[..., 8 - depth :]
    rows = np.zeros((height, (width * depth + 31) // 32 * 32), "uint8")
    rows[:, : width * depth] = bits.reshape(height, -1)
    rows = np.packbits(rows if top_down else rows[::-1], axis=-1).tobytes()
    if old:
        header, colors = struct.pack("<IHHHH", 12, width, height, 1, depth), palette[:, ::-1]
    else:
        colors = np.pad(palette[:, ::-1], [(0, 0), (0, 1)])
        header = bmp_header(width, -height if top_down else height, depth, used=used)
    return bmp(header + colors.tobytes(), rows), palette[indices]


def bmp_header(width, height, depth, compression=0, used=0) -> bytes:
    return struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, 0, 0, 0, used, 0)


def bmp(header: bytes, rows: bytes) -> bytes:
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + rows


def masked_bmp(depth: int, masks: tuple[int, ...], compression: int) -> tuple[bytes, np.ndarray]:
    """A BMP file of 16 or 32 bits, and its pixels."""
    rng, width = np.random.default_rng(depth), 5
    values = rng.integers(0, 2**depth, (3, width), np.uint64).astype(f"<u{depth // 8}")
    rows = np.zeros((3, (width * depth + 31) // 32 * 32 // depth), values.dtype)
    rows[:, :width] = values[::-1]
    header = bmp_header(width, 3, depth, compression) + struct.pack("<III", *masks)
    channels = [(values & mask) // (mask & -mask) / (mask // (mask & -mask)) for mask in masks]
    return bmp(header, rows.tobytes()), np.round(255 * np.stack(channels, axis=-1))


GRAY = PICTURE.convert("L")
FILES = {
    **{f"PNG {mode}": save(PICTURE.convert(mode), "PNG") for mode in ("1", "L", "LA", "RGB")},
    "PNG palette": save(PICTURE.quantize(60), "PNG"),
    "PNG palette of 2 bits": save(PICTURE.quantize(4), "PNG", bits=2),
    "PNG transparent color of a palette": save(PICTURE.quantize(60), "PNG", transparency=3),
    "PNG translucent palette": save(
        PICTURE.quantize(60), "PNG", transparency=bytes(range(0, 240, 4))
    ),
    "PNG transparent gray": save(GRAY, "PNG", transparency=GRAY.getpixel((0, 0))),
    "PNG transparent color": save(PICTURE, "PNG", transparency=PICTURE.getpixel((0, 0))),
    "PNG RGBA": save(FADING, "PNG"),
    "GIF": save(PICTURE.quantize(60), "GIF"),
    "GIF interlaced": save(PICTURE.quantize(60), "GIF", interlace=1),
    **{f"BMP {mode}": save(PICTURE.convert(mode), "BMP") for mode in ("1", "L", "RGB", "RGBA")},
    "BMP palette": save(PICTURE.quantize(200), "BMP"),
    "WebP": save(PICTURE, "WEBP", lossless=True),
    "WebP RGBA": save(FADING, "WEBP", lossless=True),
}


class TestFormats:
    @pytest.mark.parametrize("name", FILES)
    def test_lossless_files_equal_those_of_pillow(self, name):
        np.testing.assert_array_equal(read(FILES[name]), as_seen(FILES[name]))

    @pytest.mark.parametrize(
        ("mode", "kind", "options"),
        [
            ("RGB", "JPEG", {}),
            ("RGB", "JPEG", {"progressive": True}),
            ("L", "JPEG", {}),
            ("CMYK", "JPEG", {}),
            ("RGB", "WEBP", {}),
        ],
    )
    def test_lossy_files_are_close_to_those_of_pillow(self, mode, kind, options):
        contents = save(PICTURE.convert(mode), kind, quality=100, **options)
        assert np.abs(read(contents) - as_seen(contents)).mean() < 3

    def test_16_bits_per_channel(self):
        values = np.arange(600, dtype="uint16").reshape(20, 30) * 100
        found = read(save(Image.fromarray(values), "PNG"))
        np.testing.assert_allclose(found, np.stack([values / 257] * 3, axis=-1), atol=1)

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    @pytest.mark.parametrize("options", [{}, {"top_down": True}, {"old": True}, {"used": 2}])
    def test_palettes_of_bmp(self, depth, options):
        contents, expected = palette_bmp(depth, **options)
        np.testing.assert_array_equal(read(contents), expected)

    @pytest.mark.parametrize(
        ("depth", "masks", "compression"),
        [
            (16, (0x7C00, 0x3E0, 0x1F), 0),
            (16, (0xF800, 0x7E0, 0x1F), 3),
            (32, (0xFF0000, 0xFF00, 0xFF), 0),
            (32, (0xFF, 0xFF00, 0xFF000000), 3),
        ],
    )
    def test_masks_of_bmp(self, depth, masks, compression):
        contents, expected = masked_bmp(depth, masks, compression)
        np.testing.assert_array_equal(read(contents), expected)


class TestOrientation:
    @pytest.mark.parametrize("kind", LOSSLESS)
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_pictures_are_upright(self, kind, orientation):
        exif = Image.Exif()
        exif[0x010F], exif[0x0112], exif[0x0132] = "Maker", orientation, "2026:01:01 00:00:00"
        contents = save(PICTURE, kind, exif=exif.tobytes(), **LOSSLESS[kind])
        assert read(contents).shape[:2] == ((31, 45) if orientation < 5 else (45, 31))
        assert np.abs(read(contents) - as_seen(contents)).mean() < 3

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_both_orders_of_bytes_and_other_segments(self, order):
        entries = struct.pack(f"{order}HHIHxx", 0x0100, 3, 1, 7)
        entries += struct.pack(f"{order}HHIHxx", 0x0112, 3, 1, 6)
        mark = b"II" if order == "<" else b"MM"
        tiff = mark + struct.pack(f"{order}HIH", 42, 8, 2) + entries + bytes(4)
        jpeg = save(PICTURE, "JPEG", quality=100)

        def segment(marker, payload):
            return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload

        before = segment(0xFE, b"Exif\0\0 in a comment") + b"\xff" + segment(0xE1, b"http://xmp")
        contents = jpeg[:2] + before + segment(0xE1, b"Exif\0\0" + tiff) + jpeg[2:]
        np.testing.assert_array_equal(read(contents), np.rot90(read(jpeg), -1))

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_impossible_orientations_have_no_effect(self, value):
        exif = Image.Exif()
        exif[0x0112] = value
        plain, odd = save(PICTURE, "PNG"), save(PICTURE, "PNG", exif=exif.tobytes())
        np.testing.assert_array_equal(read(odd), read(plain))

    def test_the_resized_picture_is_that_of_an_upright_file(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = save(PICTURE.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif.tobytes())
        files = tf.data.Dataset.from_tensors([turned, save(PICTURE, "PNG")])
        [pair] = files.map(lambda batch: image.decode_batch(batch, 16))
        np.testing.assert_array_equal(pair[0], pair[1])


class TestClips:
    def test_only_the_first_frame_of_a_clip_is_decoded_for_an_image(self):
        frames = [Image.new("RGB", (20, 30), color) for color in ("red", "blue", "lime")]
        first, *others = (frame.quantize(4) for frame in frames)
        contents = save(first, "GIF", save_all=True, append_images=others, comment=b"," * 700)
        assert all_frames(contents)[:, 3, 4].numpy().tolist() == [
            [255, 0, 0], [0, 0, 255], [0, 255, 0]
        ]  # fmt: skip
        np.testing.assert_array_equal(read(contents), all_frames(contents)[0])
        # The second frame is broken.
        broken = contents[: contents.rindex(b",\0\0\0\0") + 12]
        assert problem(broken) == ""
        assert problem(broken, animated=True) == "is cut short"


TO_SAVE = ": save it as JPEG or PNG"
UNDECODED = {
    "is empty": b"",
    "cannot be decoded as an image": b"text",
    f"is a TIFF file{TO_SAVE}": save(PICTURE, "TIFF"),
    f"is a JPEG 2000 file{TO_SAVE}": save(PICTURE, "JPEG2000"),
    f"is a HEIC or AVIF file{TO_SAVE}": b"\0\0\0\x18ftypheic\0\0\0\0",
    f"is an SVG file{TO_SAVE}": b'<?xml version="1.0"?>\n<svg>',
    "is a web page, not the image": b"\n<!DOCTYPE html><html>",
    "is a pointer of Git LFS, not the image": b"version https://git-lfs.github.com/spec/v1",
    "is an animated WebP file: save it as GIF": save(
        PICTURE, "WEBP", save_all=True, append_images=[FADING]
    ),
    "is a compressed BMP file: save it as PNG": bmp(bmp_header(4, 4, 8, 1), bytes(20)),
    "is cut short": save(PICTURE, "BMP")[:-9],
}
# The headers of huge pictures.
HUGE = {
    "BMP": bmp(bmp_header(30_000, 30_000, 1), b""),
    "BMP of the largest size": bmp(bmp_header(2**31 - 1, -(2**31), 24), b""),
    "WebP": b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f" + struct.pack("<I", 16_382 << 14 | 16_382),
    "GIF": b"GIF89a" + bytes(7) + b"," + struct.pack("<4H", 0, 0, 65_535, 65_535) + b"\0\x02\0;",
    "PNG": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIB", 13, b"IHDR", 30_000, 30_000, 8),
    "JPEG": save(PICTURE, "JPEG").replace(
        struct.pack(">HH", *PICTURE.size[::-1]), struct.pack(">HH", 30_000, 30_000)
    ),
    "JPEG with Exif": save(PICTURE, "JPEG", exif=Image.Exif().tobytes()).replace(
        struct.pack(">HH", *PICTURE.size[::-1]), struct.pack(">HH", 30_000, 30_000)
    ),
}


class TestProblems:
    @pytest.mark.parametrize("expected", UNDECODED)
    def test_files_that_are_not_decoded(self, expected):
        assert problem(UNDECODED[expected]) == expected

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
    def test_files_that_are_cut(self, kind):
        contents = save(PICTURE, kind)
        why = problem(contents[: len(contents) * 2 // 3])
        assert why == ("is cut short" if kind == "GIF" else image_decoding.UNREADABLE)

    @pytest.mark.parametrize("kind", HUGE)
    def test_pictures_are_too_large_before_memory_is_taken(self, kind):
        found = problem(HUGE[kind] + bytes(60))
        assert found.startswith("has ")
        assert found.endswith(" pixels: the limit is 67,108,864 in all")

    def test_clips_are_too_large_before_memory_is_taken(self):
        frame = b"," + struct.pack("<4H", 0, 0, 8000, 8000) + b"\0\x02\x01\x44\0"
        contents = b"GIF89a" + bytes(7) + 3 * frame + b";"
        found = problem(contents, animated=True)
        assert found == "has 3 frames of 8000 x 8000 pixels: the limit is 134,217,728 in all"

    def test_a_thousand_broken_files(self):
        """Pixels, or an error of one line. The process survives."""
        rng = np.random.default_rng(0)
        exif = Image.Exif()
        exif[0x0112] = 6
        small = PICTURE.resize((12, 9))
        files = [
            palette_bmp(1)[0],
            palette_bmp(8, old=True)[0],
            masked_bmp(16, (0xF800, 0x7E0, 0x1F), 3)[0],
            save(small.quantize(9), "PNG", transparency=0, exif=exif.tobytes()),
            save(FADING.resize((12, 9)), "WEBP", exif=exif.tobytes()),
            save(small, "JPEG", exif=exif.tobytes()),
            save(small.quantize(9), "GIF", save_all=True, append_images=[small.quantize(3)]),
        ]
        given, errors = [], []
        readable = 0
        for k in range(1000):
            contents = bytearray(files[k % len(files)])
            # Mostly in the header.
            for position in rng.integers(0, rng.choice([40, len(contents)]), rng.integers(1, 6)):
                contents[position] = rng.integers(256)
            contents = bytes(contents)
            if k % 10 == 0:
                contents = contents[: rng.integers(len(contents))]
            if k % 10 == 1:
                contents += files[rng.integers(len(files))]
            why = problem(contents, animated=k % 3 == 0)
            assert "\n" not in why
            readable += not why
            if k % 3:
                given.append(contents)
                errors.append(why)
        assert 200 < readable < 900
        # In a batch, each of them changes itself only.
        pixels, found = (x.numpy() for x in image.try_decode_batch(tf.constant(given), 8))
        assert [bool(error) for error in found] == [bool(error) for error in errors]
        assert (pixels[found != b""] == 0).all()
        alone = image.decode_batch(tf.constant(given)[found == b""], 8)
        np.testing.assert_array_equal(pixels[found == b""], alone)
