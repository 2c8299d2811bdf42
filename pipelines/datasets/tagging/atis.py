"""ATIS: questions about flights."""

from unroll.pipelines.datasets.tagging.base import JointBert


class Atis(JointBert, skip_registration=True):
    """ATIS: 4,478 / 500 / 893 questions about flights, 120 tags, 21 intents in training.

    Six tags and four intents of the test split do not occur in training.
    """

    CITATION = "Hemphill, Godfrey and Doddington 1990; splits of Goo et al. 2018"
    FOLDER = "atis"
    SHA256 = {
        "train": (
            "3a670980841b21ab39088b2595efc17d487cdc45769c075a3e5f9458bba28c7f",
            "14c7131bd66562f797dbd7189bc7358f0cf354c6afb0785a9ab973c35b58f34c",
            "d0a771547665eecbdf9f96ea015ef07d1f6ee9f063e861020dafabb3c2a04377",
        ),
        "valid": (
            "c7435b96e7948393608c34819628e863c5338f11ca68e8f896d2cc041d8e17f8",
            "83ccff3e36f83a993f8e5b5b82adf3256076f234abda4d784051381d7ac76922",
            "06957cfe6fdffac84f8280bc3a1f8ca85c85631b363817aa4543aac611f8addf",
        ),
        "test": (
            "4b2119fc59c37f9398c6605db435d4f467505009e6ee3e5af04fed09f39dc397",
            "a4690d6bceadc06876d1ff99bc401744aa981cb321e598ae12a3859d7be53254",
            "ce4bfe6590d9498e1078f30b4137d3e8b3e94277b444b26360c0bf2e9e282761",
        ),
    }
