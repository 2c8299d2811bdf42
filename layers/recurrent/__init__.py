"""Recurrent layers and cells: one file for each published variant, one time loop for all."""

from unroll.layers.recurrent.cell import GatedCell, RecurrentCell
from unroll.layers.recurrent.clockwork import ClockworkRNN, ClockworkRNNCell
from unroll.layers.recurrent.context_lstm import ContextLSTM, ContextLSTMCell
from unroll.layers.recurrent.coupled_lstm import CoupledLSTM, CoupledLSTMCell
from unroll.layers.recurrent.elman import ElmanRNN, ElmanRNNCell
from unroll.layers.recurrent.esn import ESN, ESNCell
from unroll.layers.recurrent.gru import GRU, GRUCell
from unroll.layers.recurrent.ind_rnn import IndRNN, IndRNNCell
from unroll.layers.recurrent.irnn import IRNN, IRNNCell
from unroll.layers.recurrent.jordan import JordanRNN, JordanRNNCell
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.layer_norm_lstm import LayerNormLSTM, LayerNormLSTMCell
from unroll.layers.recurrent.linear_cell import LinearRecurrentCell
from unroll.layers.recurrent.linear_recurrence import linear_recurrence
from unroll.layers.recurrent.lru import LRU, LRUCell
from unroll.layers.recurrent.lstm import LSTM, LSTMCell
from unroll.layers.recurrent.min_gru import MinGRU, MinGRUCell
from unroll.layers.recurrent.min_lstm import MinLSTM, MinLSTMCell
from unroll.layers.recurrent.mlstm import MLSTM, MLSTMCell
from unroll.layers.recurrent.nas import NAS, NASCell
from unroll.layers.recurrent.peephole_lstm import PeepholeLSTM, PeepholeLSTMCell
from unroll.layers.recurrent.pooling import max_over_time, mean_over_time
from unroll.layers.recurrent.qrnn import QRNN, QRNNCell
from unroll.layers.recurrent.recurrence import StepWithGradient
from unroll.layers.recurrent.residual_block import ResidualBlock
from unroll.layers.recurrent.rg_lru import RGLRU, RGLRUCell
from unroll.layers.recurrent.scrn import SCRN, SCRNCell
from unroll.layers.recurrent.segmented import Segmented
from unroll.layers.recurrent.slstm import SLSTM, SLSTMCell
from unroll.layers.recurrent.sru import SRU, SRUCell
from unroll.layers.recurrent.stack import Stack

__all__ = [
    "ESN",
    "GRU",
    "IRNN",
    "LRU",
    "LSTM",
    "MLSTM",
    "NAS",
    "QRNN",
    "RGLRU",
    "SCRN",
    "SLSTM",
    "SRU",
    "ClockworkRNN",
    "ClockworkRNNCell",
    "ContextLSTM",
    "ContextLSTMCell",
    "CoupledLSTM",
    "CoupledLSTMCell",
    "ESNCell",
    "ElmanRNN",
    "ElmanRNNCell",
    "GRUCell",
    "GatedCell",
    "IRNNCell",
    "IndRNN",
    "IndRNNCell",
    "JordanRNN",
    "JordanRNNCell",
    "LRUCell",
    "LSTMCell",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "LinearRecurrentCell",
    "MLSTMCell",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "NASCell",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "QRNNCell",
    "RGLRUCell",
    "RecurrentCell",
    "RecurrentLayer",
    "ResidualBlock",
    "SCRNCell",
    "SLSTMCell",
    "SRUCell",
    "Segmented",
    "Stack",
    "StepWithGradient",
    "linear_recurrence",
    "max_over_time",
    "mean_over_time",
]

# The names of the recurrent layers, for an option that selects one.
RECURRENT_LAYERS = tuple(
    name
    for name in __all__
    if isinstance(globals()[name], type)
    and issubclass(globals()[name], RecurrentLayer)
    and globals()[name] is not RecurrentLayer
)
