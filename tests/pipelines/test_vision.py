"""Images as arrays: cached arrays and region features."""

import numpy as np
import pytest
import tensorflow as tf

from tests.pipelines.datasets.helpers import png
from unroll.pipelines import image, vision
from unroll.pipelines.errors import DataError


class TestCachedArray:
    def test_computed_once(self, tmp_path):
        traces = []

        def function(files):
            traces.append(1)
            return (
                tf.ones([tf.shape(files)[0], 2])
                * tf.cast(tf.strings.length(files), "float32")[:, None]
            )

        rows = tf.data.Dataset.from_tensor_slices({"image": [b"a", b"bbb", b"cc"]})
        path = tmp_path / "x.npy"
        array = vision.cached_array(rows, path, function, "float16", batch_size=2)
        assert (array.shape, array.dtype, len(array)) == ((3, 2), "float16", 3)
        assert array[np.array([1, 0, 2, 1])].tolist() == [[3, 3], [1, 1], [2, 2], [3, 3]]
        assert array[[]].shape == (0, 2)
        number = len(traces)
        vision.cached_array(rows, path, function, "float16")
        assert len(traces) == number
        assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]

    def test_a_file_that_is_cut(self, tmp_path):
        np.save(tmp_path / "x.npy", np.ones((3, 2)))
        contents = (tmp_path / "x.npy").read_bytes()
        array = vision.StoredArray(tmp_path / "x.npy")
        (tmp_path / "x.npy").write_bytes(contents[:-1])
        with pytest.raises(DataError, match=r"x\.npy is cut short: delete it"):
            array[[2]]

    def test_no_incomplete_file(self, tmp_path):
        rows = tf.data.Dataset.from_tensor_slices({"image": [png(), b"broken"]})
        with pytest.raises(tf.errors.InvalidArgumentError):
            vision.cached_array(
                rows, tmp_path / "x.npy", lambda files: image.decode_batch(files, 4), "uint8", 1
            )
        assert list(tmp_path.iterdir()) == []


class TestRegions:
    def test_both_formats(self, tmp_path):
        arrays = {"a": np.ones((2, 3), "float32"), "b": np.full((1, 3), 2, "float32")}
        np.savez(tmp_path / "x.npz", **arrays)
        with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
            for name, array in arrays.items():
                feature = {
                    "image_id": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[name.encode()])
                    ),
                    "features": tf.train.Feature(
                        float_list=tf.train.FloatList(value=array.ravel())
                    ),
                    "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=array.shape)),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        for path in (tmp_path / "x.npz", tmp_path / "x.tfrecord"):
            regions = vision.read_regions(path)
            padded = vision.select_regions(regions, ["b.jpg", "a"], path)
            assert padded.tolist() == [[[2, 2, 2], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
            with pytest.raises(DataError, match=r"no regions for 1 of 2 images, such as c.jpg"):
                vision.select_regions(regions, ["a", "c.jpg"], path)

    def test_images_of_one_name(self):
        regions = {"x/a.jpg": np.ones((1, 2)), "a": np.zeros((1, 2))}
        found = vision.select_regions(regions, ["x/a.jpg", "y/a.jpg"], "file")
        assert found.tolist() == [[[1, 1]], [[0, 0]]]
        with pytest.raises(DataError, match=r"^file: a may be y/a.jpg or z/a.jpg: name the reg"):
            vision.select_regions(regions, ["y/a.jpg", "z/a.jpg"], "file")

    def test_wrong_files(self, tmp_path):
        with pytest.raises(DataError, match="there is no such file of regions"):
            vision.read_regions(tmp_path / "none.npz")
        (tmp_path / "text.npz").write_text("text")
        with pytest.raises(DataError, match=r"neither an .npz file nor TFRecords"):
            vision.read_regions(tmp_path / "text.npz")
        (tmp_path / "text.tfrecord").write_text("not a record, only some words")
        with pytest.raises(DataError, match=r"neither an .npz file nor TFRecords"):
            vision.read_regions(tmp_path / "text.tfrecord")
        np.savez(tmp_path / "flat.npz", a=np.ones(3))
        with pytest.raises(DataError, match=r"a has the shape \(3,\), not \[S, D\]"):
            vision.read_regions(tmp_path / "flat.npz")
        np.savez(tmp_path / "two.npz", a=np.ones((1, 3)), b=np.ones((1, 4)))
        with pytest.raises(DataError, match=r"must have one width, got \[3, 4\]"):
            vision.read_regions(tmp_path / "two.npz")
