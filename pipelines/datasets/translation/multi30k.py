"""Multi30k: descriptions of photos in four languages."""

from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.translation.base import Pairs, pair, read_gzip_lines
from unroll.pipelines.errors import DataError

_ADDRESS = (
    "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/"
    "data/"
)
# The files of each split, and the checksum of each language.
FILES = {
    "train": "train",
    "valid": "val",
    "test": "test_2016_flickr",
}
CHECKSUMS = {
    ("train", "cs"): "a65adb8b32e3bc664f21ecba7a6e7f6950fd1f405e135f7c312faabdb6255077",
    ("train", "de"): "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    ("train", "en"): "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    ("train", "fr"): "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    ("valid", "cs"): "b63226e05c4bd5dd6a42897d74b86a1b9d2c31498252c572b1ea7f7996927fcc",
    ("valid", "de"): "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    ("valid", "en"): "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    ("valid", "fr"): "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
    ("test", "cs"): "200a4a74cc9560f051924abb9803be008d1908d77f747e9141aeb86dfd2797f1",
    ("test", "de"): "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    ("test", "en"): "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    ("test", "fr"): "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
}


class Multi30k(Pairs, skip_registration=True):
    """29,000 / 1,014 / 1,000 descriptions of photos, translated from English by professionals.

    Any pair of German, English, French and Czech. The test split is that of 2016.
    """

    HOMEPAGE = "https://github.com/multi30k/dataset"
    CITATION = "Elliott et al. 2016, Multi30K: Multilingual English-German image descriptions"
    LANGUAGES = ("de", "en", "fr", "cs")

    def _split_generators(self, dl_manager):
        return {split: self._pairs(split, dl_manager) for split in FILES}

    def _pairs(self, split: str, dl_manager):
        columns = []
        for language in self.languages:
            name = f"task1/raw/{FILES[split]}.{language}.gz"
            source = Source("multi30k", name, _ADDRESS + name, CHECKSUMS[split, language])
            columns.append(read_gzip_lines(find(source, dl_manager, self.manual_dir)))
        if len(columns[0]) != len(columns[1]):
            raise DataError(f"{self.name}: {split} has different numbers of sentences.")
        pairs = (pair(*row) for row in zip(*columns, strict=True))
        yield from self._generate_examples(pairs)
