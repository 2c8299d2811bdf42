"""End-to-end sequence applications: train, evaluate, predict, export."""

if __name__ != "unroll.apps":
    raise ImportError("Import this package as `unroll.apps`: `from unroll import apps`.")
