"""Independent oracles: the layers' equations again, in NumPy, in the plainest form there is.

Float64, one gate and one step at a time. A recurrent oracle is
`f(weights, sequences, states, mask=None, reverse=False) -> [outputs, *final states]`, with the
weights in the order of `layer.weights` and the outputs at their own places in time whatever the
direction. Another layer's is `f(weights, inputs, states=(), mask=None) -> outputs`.

Shape letters as in `layers`.
"""

from tests.reference.attention import *
from tests.reference.decoding import *
from tests.reference.embedding import *
from tests.reference.linear_recurrent import *
from tests.reference.memory import *
from tests.reference.recurrent import *
from tests.reference.recurrent_wrappers import *
from tests.reference.structured import *
