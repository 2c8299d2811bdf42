"""The figures of forecasts, as long-horizon papers, M4 and GluonTS count them."""

from collections.abc import Iterable

import tensorflow as tf

from unroll.apps.core.protocol import Assets


def scores(
    batches: Iterable[tuple[dict, dict, dict]], assets: Assets, levels: tuple[float, ...] = ()
) -> dict:
    """The figures of a split, of which one batch at a time is in memory.

    Args:
        batches: of `(forecast, features, labels)`, NumPy arrays or tensors. `forecast` has `mean`,
            `[B, H, C]`, in the units of the series, and optionally `quantiles`, `[B, H, C, Q]`;
            features and labels are those of `forecasting.windows` with `references`.
        assets: of `forecasting.build_assets`.
        levels: the Q levels of the quantiles, such as `(0.1, 0.5, 0.9)`.

    Returns:
        `examples`, the number of windows, and the figures by name.
    """
    raise NotImplementedError


def baseline(dataset: tf.data.Dataset, assets: Assets) -> dict:
    """The figures of the last value and of the seasonal naive, with "what" they are."""
    raise NotImplementedError
