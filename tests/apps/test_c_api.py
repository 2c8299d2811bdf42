"""The C program of `apps/core/examples` gives the answers of Python, for every app."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text

from tests.apps.test_contract_models import app, service, trained  # noqa: F401
from unroll.apps.core import export, parity

pytestmark = [pytest.mark.exhaustive, pytest.mark.usefixtures("parity_process")]

SOURCE = Path(export.__file__).parent / "examples" / "saved_model.c"
OPS = Path(tensorflow_text.__file__).parent / "python" / "ops"


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The program, built as its comment says."""
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    program = tmp_path_factory.mktemp("built") / "saved_model"
    folder = Path(tf.sysconfig.get_lib())
    libraries = [folder / f"libtensorflow_{name}.so.2" for name in ("cc", "framework")]
    command = ["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{folder}/include"]
    subprocess.run(
        [*command, SOURCE, "-o", program, *libraries, "-lm", f"-Wl,-rpath,{folder}"], check=True
    )
    return program


def run(program: Path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(list(map(str, [program, *arguments])), capture_output=True)


def arguments_of(inputs: dict[str, np.ndarray], folder: Path) -> list[str]:
    """The arguments for a request, whose values are in files."""
    found = []
    for name, array in inputs.items():
        if array.dtype.kind != "O":
            np.save(folder / f"{name}.npy", array)
            found.append(f"{name}=@{folder / name}.npy")
            continue
        for k, value in enumerate(array.flat):
            content = value if isinstance(value, bytes) else value.encode()
            (folder / f"{name}-{k}").write_bytes(content)
            found.append(f"{name}=@{folder / name}-{k}")
    return found


def test_the_program_answers_like_python(app, trained, service, program, tmp_path):  # noqa: F811
    folder = export.write(
        service, trained.assets, app.examples(), tmp_path / "exported", ("saved_model",)
    )
    requests = service.requests(app.examples()[:2])["serving_default"]
    options = [f"--ops={library}" for library in sorted(OPS.glob("*.so"))]
    result = run(program, folder, "serving_default", *options, *arguments_of(requests, tmp_path))
    assert result.returncode == 0, result.stderr.decode()
    answers = json.loads(result.stdout.decode(errors="replace"))
    expected = export._call(service.functions["serving_default"], requests)
    assert answers.keys() == expected.keys()
    for name, value in expected.items():
        found = answers[name]
        assert found["shape"] == list(value.shape)
        if value.dtype.kind == "O":
            assert found["values"] == [each.decode(errors="replace") for each in value.flat]
        else:
            array = np.array(found["values"], value.dtype).reshape(value.shape)
            assert parity.difference(value, array) <= 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "usage: needs EXPORT"),
        (("nowhere", "serving_default"), "nowhere: Could not find SavedModel"),
        (("nowhere", "serving_default", "--ops=none.so"), "none.so: none.so: cannot open"),
    ],
)
def test_a_mistake_is_one_line(program, arguments, message):
    result = run(program, *arguments)
    assert result.returncode == 2
    assert result.stderr.decode().splitlines()[-1].startswith(f"saved_model: {message}")
    assert result.stdout == b""
