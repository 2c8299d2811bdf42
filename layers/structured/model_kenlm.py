"""Files of KenLM, which the package `kenlm` reads."""


def load(path) -> tuple:
    """The model of a binary or ARPA file, and the class of its states.

    Raises:
        ImportError: if the package is not installed.
        OSError: if the file cannot be read.
    """
    try:
        import kenlm
    except ImportError:
        raise ImportError("from_kenlm needs the package kenlm: pip install kenlm") from None
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    return kenlm.Model(str(path), config), kenlm.State
