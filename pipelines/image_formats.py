"""The formats of image files in the graph: size, orientation, palettes and transparency."""

import tensorflow as tf

# The largest number of pixels of an image, and of all frames of a clip.
MAX_PIXELS = 2**26
MAX_CLIP_PIXELS = 2**27
# The message for a file without a known reason.
UNREADABLE = "cannot be decoded as an image"
# Segments, chunks or blocks of a file that are read in search of its size and orientation.
_MAX_PARTS = 2000


class File:
    """The bytes of a file, zeros beyond its end, and the integers in them."""

    def __init__(self, contents):
        self.contents = contents
        self.size = tf.cast(tf.strings.length(contents), tf.int64)
        self.data = tf.pad(tf.io.decode_raw(contents, tf.uint8), [[0, 4]])

    def at(self, positions):
        """The bytes at positions, int64, of the same shape."""
        inside = (positions >= 0) & (positions < self.size)
        found = tf.gather(self.data, tf.where(inside, positions, self.size))
        return tf.cast(found, tf.int64)

    def head(self, position, count: int):
        """`count` bytes from a position on."""
        return self.at(position + tf.range(count, dtype=tf.int64))

    def integer(self, positions, count: int, big=False):
        """The unsigned integers of `count` bytes at positions, from the last byte if not `big`."""
        powers = tf.constant([256**k for k in range(count)], tf.int64)
        powers = tf.where(big, powers[::-1], powers)
        positions = tf.convert_to_tensor(positions, tf.int64)[..., None]
        parts = self.at(positions + tf.range(count, dtype=tf.int64))
        return tf.reduce_sum(parts * powers, axis=-1)

    def has(self, position, expected: bytes):
        """Whether some bytes are at a position."""
        return _equal(self.head(position, len(expected)), expected)


def _equal(found, expected: bytes):
    return tf.reduce_all(found == tf.constant(list(expected), tf.int64))


def fail():
    """Frames of a file of another format: an error where they are computed."""
    with tf.control_dependencies([tf.debugging.Assert(False, [UNREADABLE])]):
        return tf.zeros([1, 1, 1, 3], tf.uint8)


def _check(condition, message):
    return tf.debugging.Assert(condition, [message])


def check_size(height, width, frames=1, most: int = MAX_PIXELS):
    """An assertion that all frames have at most `most` pixels, at least one each."""
    given = tf.strings.format("has {} x {} pixels", (width, height))
    if most == MAX_CLIP_PIXELS:
        given = tf.strings.format("has {} frames of {} x {} pixels", (frames, width, height))
    message = tf.strings.join([given, f": the limit is {most:,} in all"])
    return _check((height > 0) & (width > 0) & (height * width * frames <= most), message)


def decode_jpeg(file: File):
    """The segments up to the pixels have the size (of a frame header) and the Exif block."""

    def is_header(position, *_):
        head = file.head(position, 2)
        return (head[0] == 0xFF) & (head[1] != 0xDA) & (head[1] != 0xD9) & (position < file.size)

    def read(position, exif, height, width):
        head = file.head(position, 10)
        marker, length = head[1], 256 * head[2] + head[3]
        found = (exif == 0) & (marker == 0xE1) & _equal(head[4:10], b"Exif\0\0")
        exif = tf.where(found, position + 10, exif)
        # C4, C8 and CC are not frame headers.
        frame = (marker == 0xC0) | ((marker > 0xC0) & (marker <= 0xCF) & (marker % 4 != 0))
        height = tf.where(frame, 256 * head[5] + head[6], height)
        width = tf.where(frame, 256 * head[7] + head[8], width)
        alone = (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD7))
        step = tf.where(marker == 0xFF, _int(1), tf.where(alone, _int(2), 2 + length))
        return position + step, exif, height, width

    end, exif, height, width = tf.while_loop(
        is_header, read, [_int(2), _int(0), _int(0), _int(0)], maximum_iterations=_MAX_PARTS
    )
    # Without the start of the pixels, the decoder also prints a message of its own.
    is_whole = file.has(end, b"\xff\xda") & (width > 0)
    with tf.control_dependencies([_check(is_whole, UNREADABLE)]):
        checks = [check_size(height, width)]
    with tf.control_dependencies(checks):
        contents = tf.identity(file.contents)
    pixels = tf.io.decode_image(contents, channels=3, expand_animations=False)
    return _upright(pixels[None], _orientation(file, exif))


def decode_png(file: File):
    """The chunks up to the pixels say whether there is transparency, and have the Exif block."""

    def is_header(position, *_):
        is_last = file.has(position + 4, b"IDAT") | file.has(position + 4, b"IEND")
        return (position < file.size) & ~is_last

    def read(position, exif, transparent):
        kind = file.head(position + 4, 4)
        exif = tf.where(_equal(kind, b"eXIf"), position + 8, exif)
        transparent |= _equal(kind, b"tRNS")
        return position + 12 + file.integer(position, 4, big=True), exif, transparent

    color_type = file.integer(25, 1)
    _, exif, transparent = tf.while_loop(
        is_header,
        read,
        [_int(8), _int(0), (color_type == 4) | (color_type == 6)],
        maximum_iterations=_MAX_PARTS,
    )
    size = file.integer(20, 4, big=True), file.integer(16, 4, big=True)
    with tf.control_dependencies([check_size(*size)]):
        contents = tf.identity(file.contents)
    pixels = tf.cond(
        transparent,
        lambda: _on_white(tf.io.decode_png(contents, channels=4)),
        lambda: tf.io.decode_png(contents, channels=3),
    )
    return _upright(pixels[None], _orientation(file, exif))


def decode_webp(file: File):
    """The chunk after the header has the size; one after the pixels has the Exif block."""

    def is_chunk(position, _):
        return position < file.size

    def read(position, exif):
        head = file.head(position, 14)
        start = position + tf.where(_equal(head[8:], b"Exif\0\0"), _int(14), _int(8))
        exif = tf.where(_equal(head[:4], b"EXIF"), start, exif)
        length = tf.reduce_sum(head[4:8] * [1, 256, 256**2, 256**3])
        return position + 8 + length + length % 2, exif

    _, exif = tf.while_loop(is_chunk, read, [_int(12), _int(0)], maximum_iterations=_MAX_PARTS)
    packed = file.integer(21, 4)  # of a lossless image
    extended = (file.integer(27, 3) + 1, file.integer(24, 3) + 1)
    lossless = (packed // 2**14 % 2**14 + 1, packed % 2**14 + 1)
    lossy = (file.integer(28, 2) % 2**14, file.integer(26, 2) % 2**14)
    is_extended, is_lossless = file.has(12, b"VP8X"), file.has(12, b"VP8L")
    height, width = (
        tf.where(is_extended, extended[k], tf.where(is_lossless, lossless[k], lossy[k]))
        for k in (0, 1)
    )
    animated = is_extended & (file.integer(20, 1) // 2 % 2 == 1)
    message = "is an animated WebP file: save it as GIF"
    with tf.control_dependencies([_check(~animated, message), check_size(height, width)]):
        contents = tf.identity(file.contents)
    pixels = tf.io.decode_image(contents, channels=0, expand_animations=False)
    pixels = tf.cond(tf.shape(pixels)[-1] == 4, lambda: _on_white(pixels), lambda: pixels[..., :3])
    return _upright(pixels[None], _orientation(file, exif))


def decode_gif(file: File, animated: bool):
    """The blocks have the sizes of the frames. Only the frames that are needed are decoded."""
    # The end of a chain of data blocks, each with its length, by the position of the first one:
    # the position of the block after the next 1, 2, 4, 8 ... blocks. A block of length 0 is last.
    count = tf.size(file.data)
    after = tf.minimum(tf.range(count) + 1 + tf.cast(file.data, tf.int32), count - 1)
    after = tf.where(file.data == 0, tf.range(count), after)
    for _ in range(16):
        after = tf.gather(after, after)

    def end_of_data(position):
        position = tf.minimum(position, tf.cast(count - 1, tf.int64))
        return tf.cast(after[position], tf.int64) + 1

    def table_size(flags):
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def is_block(position, frames, *_):
        separator = file.integer(position, 1)
        is_needed = tf.constant(True) if animated else frames == 0
        return is_needed & ((separator == 0x21) | (separator == 0x2C))

    def read(position, frames, height, width):
        head = file.head(position, 10)
        is_frame = head[0] == 0x2C
        size = head[5:9:2] + 256 * head[6:10:2]
        descriptor = position + 10 + table_size(file.integer(position + 9, 1)) + 1
        data = tf.where(is_frame, descriptor, position + 2)
        return (
            end_of_data(data),
            frames + tf.cast(is_frame, tf.int64),
            tf.where(is_frame, tf.maximum(height, size[1]), height),
            tf.where(is_frame, tf.maximum(width, size[0]), width),
        )

    start = 13 + table_size(file.integer(10, 1))
    end, frames, height, width = tf.while_loop(
        is_block, read, [start, _int(0), _int(1), _int(1)], maximum_iterations=_MAX_PARTS
    )
    most = MAX_CLIP_PIXELS if animated else MAX_PIXELS
    # The rest of a file with more blocks is not decoded.
    needed = tf.strings.substr(file.contents, 0, tf.cast(tf.minimum(end, file.size), tf.int32))
    # A decoder would leave out a frame that is not complete.
    checks = [_check(end <= file.size, "is cut short"), check_size(height, width, frames, most)]
    with tf.control_dependencies(checks):
        contents = tf.strings.join([needed, ";"])
    return tf.io.decode_gif(contents)


def decode_bmp(file: File):
    """Palettes of 1, 2, 4 and 8 bits, and pixels of 16, 24 and 32 bits, without compression."""
    header = file.integer(14, 4)
    is_old = header == 12
    width = tf.where(is_old, file.integer(18, 2), _signed(file.integer(18, 4)))
    height = tf.where(is_old, file.integer(20, 2), _signed(file.integer(22, 4)))
    depth = tf.where(is_old, file.integer(24, 2), file.integer(28, 2))
    compression = tf.where(is_old, _int(0), file.integer(30, 4))
    from_top, height = height < 0, tf.abs(height)
    masked = (compression == 3) | (compression == 6)
    stride, start = (width * depth + 31) // 32 * 4, file.integer(10, 4)
    end = start + stride * (height - 1) + (width * depth + 7) // 8
    checks = [
        _check(tf.reduce_any(depth == [1, 2, 4, 8, 16, 24, 32]), UNREADABLE),
        _check((compression == 0) | masked, "is a compressed BMP file: save it as PNG"),
        check_size(height, width),
    ]
    with tf.control_dependencies(checks):
        checks = [_check((start >= 26) & (end <= file.size), "is cut short")]
    with tf.control_dependencies(checks):
        # The padding of the last row may be missing: zeros follow the file.
        rows = tf.reshape(file.data[start : start + stride * height], [height, stride])

    def with_palette():
        per_byte = 8 // depth
        shifts = tf.cast(8 - depth - depth * tf.range(per_byte), tf.uint8)
        indices = tf.bitwise.right_shift(rows[..., None], shifts)
        indices = tf.bitwise.bitwise_and(indices, tf.cast(2**depth - 1, tf.uint8))
        indices = tf.reshape(indices, [height, stride * per_byte])[:, :width]
        entries, used = tf.range(256, dtype=tf.int64), file.integer(46, 4)
        used = tf.where(is_old | (used == 0), 2**depth, used)
        first = 14 + header + tf.where(is_old, _int(3), _int(4)) * entries
        palette = file.at(first[:, None] + [2, 1, 0])  # blue comes first
        palette = tf.where((entries < used)[:, None], palette, 0)
        return tf.gather(tf.cast(palette, tf.uint8), tf.cast(indices, tf.int32))

    def three_bytes():
        return tf.reshape(rows[:, : 3 * width], [height, width, 3])[..., ::-1]

    def with_masks():
        size = depth // 8
        values = tf.reshape(rows[:, : size * width], [height, width, size])
        values = tf.cond(
            size == 2,
            lambda: tf.cast(
                tf.bitcast(tf.ensure_shape(values, [None, None, 2]), tf.uint16), tf.uint32
            ),
            lambda: tf.bitcast(tf.ensure_shape(values, [None, None, 4]), tf.uint32),
        )
        usual = tf.where(depth == 16, [0x7C00, 0x3E0, 0x1F], [0xFF0000, 0xFF00, 0xFF])
        masks = tf.where(masked, file.integer([54, 58, 62], 4), tf.cast(usual, tf.int64))
        channels = []
        for mask in tf.unstack(masks):
            lowest = tf.maximum(tf.bitwise.bitwise_and(mask, -mask), 1)
            channel = tf.bitwise.bitwise_and(values, tf.cast(mask, tf.uint32))
            largest = tf.cast(tf.maximum(mask // lowest, 1), tf.float32)
            channel = tf.cast(channel // tf.cast(lowest, tf.uint32), tf.float32) / largest
            channels.append(tf.cast(tf.round(255 * channel), tf.uint8))
        return tf.stack(channels, axis=-1)

    pixels = tf.cond(
        depth <= 8,
        with_palette,
        lambda: tf.cond(depth == 24, three_bytes, with_masks),
    )
    return tf.cond(from_top, lambda: pixels, lambda: tf.reverse(pixels, [0]))[None]


def _int(value: int):
    return tf.constant(value, tf.int64)


def _signed(value):
    return tf.where(value >= 2**31, value - 2**32, value)


def _on_white(pixels):
    """Pixels `[H, W, 4]` with transparency on a white background, `[H, W, 3]`."""
    colors, opacity = (tf.cast(x, tf.uint16) for x in (pixels[..., :3], pixels[..., 3:]))
    return tf.cast((colors * opacity + 255 * (255 - opacity) + 127) // 255, tf.uint8)


def _orientation(file: File, exif):
    """The orientation of an image, 1 to 8, from the position of its Exif block; 0 for none."""
    big = file.integer(exif, 1) == ord("M")
    entries = exif + file.integer(exif + 4, 4, big)
    count = tf.where(exif > 0, file.integer(entries, 2, big), 0)
    starts = entries + 2 + 12 * tf.range(count)
    is_long = file.integer(starts + 2, 2, big) == 4
    values = tf.where(is_long, file.integer(starts + 8, 4, big), file.integer(starts + 8, 2, big))
    found = values[file.integer(starts, 2, big) == 0x0112]
    value = tf.concat([found, [_int(1)]], axis=0)[0]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _upright(frames, orientation):
    """Turns and mirrors `[F, H, W, 3]` as the orientation of Exif says."""
    quarter = (orientation - 1) % 4

    def turn():
        x = tf.cond(orientation > 4, lambda: tf.transpose(frames, [0, 2, 1, 3]), lambda: frames)
        reversed_axes = tf.stack([quarter >= 2, (quarter == 1) | (quarter == 2)])
        return tf.reverse(x, tf.boolean_mask([1, 2], reversed_axes))

    return tf.cond(orientation > 1, turn, lambda: frames)
