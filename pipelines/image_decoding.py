"""Image files to pixels in the graph: JPEG, PNG, GIF, BMP and WebP as a viewer shows them.

TensorFlow's decoders do most of the work. `image_formats` adds the orientation of photos, BMP files
with a palette, transparency, and limits on the size, which is known before memory is taken. An
exported model contains all of it.
"""

import functools
import re

import tensorflow as tf

from unroll.pipelines.image_formats import (
    MAX_PIXELS,
    UNREADABLE,
    File,
    check_size,
    decode_bmp,
    decode_gif,
    decode_jpeg,
    decode_png,
    decode_webp,
    fail,
)

_SIGNATURES = {
    "JPEG": (0, b"\xff\xd8\xff"),
    "PNG": (0, b"\x89PNG\r\n\x1a\n"),
    "GIF": (0, b"GIF8"),
    "BMP": (0, b"BM"),
    "WebP": (8, b"WEBP"),
}
_KINDS = "JPEG, PNG, GIF, BMP or WebP"
# Files of up to this many bytes are searched for what needs more than TensorFlow's decoders.
_SHORT = 2**16
# The signature, the first chunk, and a type of colors without transparency.
_OPAQUE_PNG = r"\CPNG\r\n\x1a\n\C{17}[\x00\x02\x03]\C*"
# What people give instead, by a pattern of the first bytes, for messages.
_OTHERS = {
    rb".{4}ftyp(hei|hev|mif|msf|avi)": "a HEIC or AVIF file",
    rb"II[*+]\0|MM\0[*+]": "a TIFF file",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "a JPEG XL file",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "a JPEG 2000 file",
    rb"8BPS": "a Photoshop file",
    rb"%PDF": "a PDF file",
    rb"\0\0[\1\2]\0": "an icon file",
    rb".{4}ftyp|\x1aE\xdf\xa3|RIFF....AVI ": "a video",
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg": "an SVG file",
    rb"(?i)\s*<(!doctype html|html|head|body)": "a web page, not the image",
    rb"version https://git-lfs": "a pointer of Git LFS, not the image",
}
_OWN_MESSAGE = re.compile(r"assertion failed: \[([^\]]*)\]")


def problem(contents: bytes, animated: bool = False) -> str:
    """Why an image file cannot be decoded, or "" if it can.

    Args:
        contents: of the file.
        animated: whether all frames are decoded, or the first one only.

    >>> problem(b"")
    'is empty'
    >>> problem(b"II*\\0")
    'is a TIFF file: save it as JPEG or PNG'
    """
    if not contents:
        return "is empty"
    if not any(contents[at:].startswith(first) for at, first in _SIGNATURES.values()):
        for pattern, kind in _OTHERS.items():
            if re.match(pattern, contents[:1000], re.DOTALL):
                return f"is {kind}" if "not" in kind else f"is {kind}: save it as JPEG or PNG"
        return UNREADABLE
    try:
        (all_frames if animated else first_frame)(tf.constant(contents))
    except tf.errors.OpError as error:
        own = _OWN_MESSAGE.search(str(error))
        return own[1] if own else UNREADABLE
    return ""


def reasons(contents) -> tf.Tensor:
    """Why files that cannot be decoded cannot be, in the graph, where an error has no message.

    Args:
        contents: `[B]`, strings.

    Returns:
        `[B]`, strings, never empty.

    >>> [reason] = reasons(tf.constant(["II*\\0"])).numpy()
    >>> reason.decode()
    'is not a JPEG, PNG, GIF, BMP or WebP file'
    """
    is_known = tf.reduce_any([_begins(contents, kind) for kind in _SIGNATURES], axis=0)
    unknown = tf.where(contents == b"", "is empty", f"is not a {_KINDS} file")
    broken = f"is damaged, of a kind that is not supported, or has more than {MAX_PIXELS:,} pixels"
    return tf.where(is_known, broken, unknown)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def first_frame(contents):
    """The pixels of an image file, of a GIF its first frame, as a viewer shows them.

    Args:
        contents: a scalar string: JPEG, PNG, GIF, BMP or WebP.

    Returns:
        `[H, W, 3]`, uint8. Transparent parts are on white, except those of a GIF, which are black.

    Raises:
        InvalidArgumentError: if the file cannot be decoded, or has more than `MAX_PIXELS` pixels.
    """
    return tf.ensure_shape(_decode(contents, animated=False)[0], [None, None, 3])


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def all_frames(contents):
    """All frames of an animated GIF, `[F, H, W, 3]`; F is 1 for other files.

    Each frame is drawn over the one before, whatever its disposal method.

    Raises:
        InvalidArgumentError: as `first_frame`; or if all frames have more than `MAX_CLIP_PIXELS`
            pixels.
    """
    return tf.ensure_shape(_decode(contents, animated=True), [None, None, None, 3])


def _decode(contents, animated: bool) -> tf.Tensor:
    """`[F, H, W, 3]`, uint8."""
    is_short = tf.strings.length(contents) <= _SHORT
    head = tf.where(is_short, contents, b"")
    is_plain = is_short & ~tf.strings.regex_full_match(head, r"\C*(Exif|eXIf|tRNS)\C*")
    which = tf.argmax(
        tf.stack(
            [
                is_plain & _begins(contents, "JPEG"),
                is_plain & tf.strings.regex_full_match(head, _OPAQUE_PNG),
                tf.constant(True),
            ]
        ),
        output_type=tf.int32,
    )  # the first that is true
    of_any_format = _clip_of_any_format if animated else _image_of_any_format
    functions = (_plain_jpeg, _plain_png, of_any_format)
    return tf.switch_case(which, [functools.partial(each, contents) for each in functions])


# Not inlined: TensorFlow visits all operations of the branches that it does not take.
_noinline = functools.partial(
    tf.function,
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},
)


@_noinline
def _image_of_any_format(contents):
    return _of_any_format(contents, animated=False)


@_noinline
def _clip_of_any_format(contents):
    return _of_any_format(contents, animated=True)


def _of_any_format(contents, animated: bool) -> tf.Tensor:
    file = File(contents)
    branches = {
        "JPEG": lambda: decode_jpeg(file),
        "PNG": lambda: decode_png(file),
        "GIF": lambda: decode_gif(file, animated),
        "BMP": lambda: decode_bmp(file),
        "WebP": lambda: decode_webp(file),
    }
    conditions = [*(_begins(contents, kind) for kind in branches), tf.constant(True)]
    which = tf.argmax(tf.stack(conditions), output_type=tf.int32)  # the first that is true
    return tf.switch_case(which, [*branches.values(), fail])


def _begins(contents, kind: str):
    at, first = _SIGNATURES[kind]
    begin = tf.strings.substr(contents, 0, at + len(first))
    if not at:
        return tf.equal(begin, first)
    return tf.strings.regex_full_match(begin, rf"\C{{{at}}}{first.decode()}")


def _plain_jpeg(contents):
    """As `decode_jpeg`, without its cost, which is that of decoding ten small files."""
    height, width = tf.unstack(tf.io.extract_jpeg_shape(contents)[:2])
    return _checked(contents, height, width)


def _plain_png(contents):
    """As `decode_png`."""
    size = tf.strings.substr(contents, 16, 8)
    width, height = tf.unstack(
        tf.ensure_shape(tf.io.decode_raw(size, tf.int32, little_endian=False), [2])
    )
    return _checked(contents, height, width)


def _checked(contents, height, width):
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    with tf.control_dependencies([check_size(height, width)]):
        contents = tf.identity(contents)
    return tf.io.decode_image(contents, channels=3, expand_animations=False)[None]
