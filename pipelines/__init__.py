"""From files on disk to batches of tensors."""

if __name__ != "unroll.pipelines":
    raise ImportError("Import this package as `unroll.pipelines`: `from unroll import pipelines`.")
