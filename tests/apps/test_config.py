"""Configurations from the command line, and from the file of a run."""

import dataclasses
import json
import math

import keras
import numpy as np
import pytest

from tests.apps import toy
from unroll.apps.core import config
from unroll.apps.core.errors import UsageError

DIGITS = toy.PRESETS["digits"]
OPTIONS = "The options are --data, --generated-size, --seed, "


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ([], {}),
        (["--units=5", "--batch_size=7"], {"units": 5, "batch_size": 7}),
        (["--units", "5", "--batch-size", "7"], {"units": 5, "batch_size": 7}),
        (["--learning-rate=1e-4"], {"learning_rate": 1e-4}),
        (["--jit", "--no-normalize"], {"jit": True, "normalize": False}),
        (["--jit=True", "--normalize", "False"], {"jit": True, "normalize": False}),
        (["--jit=true", "--normalize", "false"], {"jit": True, "normalize": False}),
        (["--jit", "--no-normalize", "--data", "digits"], {"jit": True, "normalize": False}),
        (["--precision=mixed_bfloat16"], {"precision": "mixed_bfloat16"}),
        (["--clip-norm=0"], {"clip_norm": 0.0}),
    ],
)
def test_options_override_the_first_preset(arguments, changes):
    assert config.parse(toy, arguments) == dataclasses.replace(DIGITS, **changes)


@pytest.mark.parametrize(
    "arguments", [["--jit=true", "--data", "false"], ["--jit", "true", "--data", "false"]]
)
def test_only_the_value_of_a_switch_is_read_as_a_boolean(arguments):
    assert config.parse_options(toy.Config, arguments, DIGITS).data == "false"


@pytest.mark.parametrize("data", [["--data=long_digits"], ["--data", "long_digits"]])
def test_data_selects_its_preset(data):
    parsed = config.parse(toy, ["--units=5", *data])
    assert parsed == dataclasses.replace(toy.PRESETS["long_digits"], units=5)


def test_a_folder_of_data_uses_the_first_preset(tmp_path):
    parsed = config.parse(toy, [f"--data={tmp_path}"])
    assert parsed == dataclasses.replace(DIGITS, data=str(tmp_path))


@pytest.mark.parametrize("columns", ["30", "80", "200"])
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--unit=3"], ["--unit=3, did you mean --units?", OPTIONS, "--weight-decay."]),
        (["--batchsize=3"], ["--batchsize=3, did you mean --batch-size?", OPTIONS]),
        (["--zzz=3", "--qqq=4"], ["--zzz=3, --qqq=4. ", OPTIONS]),
        (["stray"], ["stray", OPTIONS]),
        (["--units=x"], ["--units", "integer", "'x'"]),
        (["--epochs=1e3"], ["--epochs", "integer", "'1e3'"]),
        (["--learning-rate=fast"], ["--learning-rate", "number", "'fast'"]),
        (["--units"], ["--units", "Missing value"]),
        (["--jit=maybe"], ["--jit", "'maybe'", "'True', 'False'"]),
        (["--precision=float8"], ["--precision", "'float8'", "'float32', 'mixed_bfloat16'"]),
        (["--schedule=linear"], ["--schedule", "'linear'", "'constant', 'cosine'"]),
        (["--data=nope"], ["--data=nope", "digits, long_digits", "folder"]),
        (["--epochs=0"], ["epochs must be at least 1, got 0"]),
        (["--batch-size=0"], ["batch_size must be at least 1, got 0"]),
        (["--patience=-1"], ["patience must be at least 1, got -1"]),
        (["--learning-rate=0"], ["learning_rate must be above 0", "got 0.0"]),
        (["--learning-rate=nan"], ["learning_rate must be above 0", "got nan"]),
        (["--learning-rate=inf"], ["learning_rate must be above 0", "got inf"]),
        (["--clip-norm=-1"], ["clip_norm must be 0 or more, got -1.0"]),
        (["--dropout=1"], ["dropout must be in [0, 1), got 1.0"]),
        (["--seed=-1"], ["seed must be in [0, 2**32), got -1"]),
        (["--generated-size=0"], ["generated_size must be above 0", "got 0.0"]),
        (["--generated-size=inf"], ["generated_size must be above 0 and finite, got inf"]),
        (["--monitor=val_acuracy"], ["--monitor=val_acuracy", "val_loss, val_accuracy, "]),
    ],
)
def test_a_wrong_option_is_one_line(monkeypatch, columns, arguments, parts):
    monkeypatch.setenv("COLUMNS", columns)  # tyro wraps its box to the width of the terminal
    with pytest.raises(UsageError) as error:
        config.parse(toy, arguments)
    message = str(error.value)
    assert "\n" not in message
    assert not set("│╭╮╰╯─") & set(message)
    for part in parts:
        assert part in message


def test_help_has_the_comments_and_the_preset_s_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        config.parse(toy, ["--data=long_digits", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "size of the recurrent state" in printed
    assert "(default: long_digits)" in printed
    assert "--clip-norm" in printed


def test_to_json_and_back():
    given = dataclasses.replace(DIGITS, data="a folder/with = signs", jit=True, learning_rate=1 / 3)
    fields = json.loads(json.dumps(config.to_json(given)))
    assert config.from_json(toy.Config, fields, "config.json") == given


def test_a_field_that_was_added_since_has_the_default_of_the_class():
    fields = config.to_json(DIGITS)
    del fields["units"]
    assert config.from_json(toy.Config, fields, "config.json") == dataclasses.replace(
        DIGITS, units=toy.Config().units
    )


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"units": "x"}, "--units"),
        ({"unitz": 3}, "--unitz"),
        ({"epochs": 0}, "epochs must be"),
    ],
)
def test_a_broken_file_is_named(changes, part):
    fields = {**config.to_json(DIGITS), **changes}
    with pytest.raises(UsageError, match=rf"^run/config\.json: [^\n]*{part}"):
        config.from_json(toy.Config, fields, "run/config.json")


@pytest.mark.parametrize(
    ("monitor", "direction"),
    [
        ("loss", "min"),
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("val_mae", "min"),
        ("cer", "min"),
        ("nll", "min"),
    ],
)
def test_an_app_declares_the_direction_of_a_figure(monkeypatch, monitor, direction):
    declared = {"val_accuracy": "max", "val_mae": "min", "cer": "min", "nll": "min"}
    monkeypatch.setattr(toy, "MONITORS", declared)
    assert config.monitor_direction(toy, monitor) == direction
    assert config.parse(toy, [f"--monitor={monitor}"]).monitor == monitor


@pytest.mark.parametrize("monitor", ["val_acuracy", "", "val_mae"])
def test_a_figure_that_is_not_declared_is_refused(monitor):
    message = "^--monitor=.*: it must be one of loss, val_loss, val_accuracy, val_error_rate"
    with pytest.raises(UsageError, match=message):
        config.parse(toy, [f"--monitor={monitor}"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.01] * 8),
        ({"schedule": "cosine"}, [0.005 + 0.005 * math.cos(math.pi * k / 8) for k in range(8)]),
        ({"schedule": "halving"}, [0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025, 0.00125, 0.00125]),
    ],
)
def test_learning_rate_schedules(changes, expected):
    given = dataclasses.replace(DIGITS, epochs=8, **changes)
    rates = [given.learning_rate_at(epoch, []) for epoch in range(8)]
    assert rates == pytest.approx(expected)
    six = dataclasses.replace(given, schedule="halving", epochs=6)
    rates = [six.learning_rate_at(epoch, []) for epoch in range(6)]
    assert rates == pytest.approx([0.01 / n for n in (1, 1, 2, 4, 4, 8)])


@pytest.mark.parametrize(("clip", "expected"), [(0.5, 0.5), (0.0, None)])
def test_the_optimizers_clip_the_gradient(clip, expected):
    given = dataclasses.replace(DIGITS, clip_norm=clip, learning_rate=0.25)
    adam, adamw = config.optimizer(given), config.optimizer(given, weight_decay=0.125)
    assert type(adam).__name__ == "Adam"
    assert type(adamw).__name__ == "AdamW"
    assert adamw.weight_decay == 0.125
    for made in (adam, adamw):
        assert made.global_clipnorm == expected
        assert float(made.learning_rate) == 0.25


def test_weights_decay_and_biases_do_not():
    layer = keras.layers.Dense(2, bias_initializer="ones", name="dense")
    layer.build((None, 3))
    kernel = layer.kernel.numpy()
    optimizer = config.optimizer(DIGITS, weight_decay=0.5)
    gradients = [np.zeros(weight.shape, "float32") for weight in layer.trainable_variables]
    optimizer.apply(gradients, layer.trainable_variables)
    decay = 1 - 0.5 * float(optimizer.learning_rate)
    np.testing.assert_allclose(layer.kernel, decay * kernel, rtol=1e-5)
    np.testing.assert_array_equal(layer.bias, 1)
