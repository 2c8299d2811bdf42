"""Recurrent and attention layers for Keras 3, and sequence applications built from them.

`unroll.layers` holds the layers, `unroll.pipelines` the data pipelines and `unroll.apps` the
applications.
"""

from pathlib import Path

__version__ = "0.2.0.dev0"

# In a checkout, `unroll.layers` is the folder `layers` of the repository. An installed wheel has
# these folders inside `unroll`.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "layers" / "__init__.py").is_file():
    __path__.append(str(_root))
