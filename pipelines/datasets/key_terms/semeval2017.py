"""SemEval-2017, task 10: paragraphs of scientific articles."""

from unroll.pipelines.datasets.key_terms.base import KeyTermColumns


class SemEval2017(KeyTermColumns, skip_registration=True):
    """SemEval-2017, task 10: 350 / 50 / 100 paragraphs; key terms are tasks, processes, materials.

    The articles are of computer science, material science and physics. Where one key term is inside
    another, the files have one of the two.
    """

    name = "semeval2017"
    CITATION = "Augenstein et al. 2017; as tags Sahrawat et al. 2020, arXiv:1910.08840"
    FOLDER = "semeval2017"
    PUBLISHED_FOLDER = "SemEval-2017"
    FILES = {
        "train": ("train.txt", "196417a37a8e4ef7275dadff341ab95a3c2489abe7385841fc07e1a2ba82e002"),
        "valid": ("dev.txt", "510266aef5c1b053432a2a4f95919f0826ff172abd2bd55320e79d23433c19cd"),
        "test": ("test.txt", "6ca0ae81736d2fd2bc2300a947e3d89a9ac266193d53d19fe82b024b2f07fff6"),
    }
