"""Recurrent layers: each published variant in a file of its own, all on one time loop."""

from layers.recurrent.lstm import LSTM, LSTMCell
from layers.recurrent.pooling import max_over_time, mean_over_time
from layers.recurrent.segmented import Segmented
from layers.recurrent.stack import Stack

__all__ = ["LSTM", "LSTMCell", "Segmented", "Stack", "max_over_time", "mean_over_time"]
