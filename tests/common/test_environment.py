"""The sentence at import where Keras isn't Keras 3 on TensorFlow, in processes of their own."""

import os
import subprocess
import sys

import pytest

from mrcnn_tf.common import environment


def import_error(tmp_path, code="import mrcnn_tf", **environment):
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return result.returncode, result.stderr.strip().splitlines()[-1] if result.stderr.strip() else ""


def test_the_command_doesnt_wait_for_tensorflow(tmp_path):
    code = """if True:
        import sys
        import mrcnn_tf.cli
        assert not {"keras", "tensorflow"} & {*sys.modules}"""
    assert import_error(tmp_path, code) == (0, "")


def test_legacy_keras(tmp_path):
    status, message = import_error(tmp_path, TF_USE_LEGACY_KERAS="1")
    assert status and "TF_USE_LEGACY_KERAS is set: unset it" in message


def test_another_backend_by_variable(tmp_path):
    status, message = import_error(tmp_path, KERAS_BACKEND="jax")
    assert status and "the backend is 'jax': set KERAS_BACKEND=tensorflow" in message


def test_another_backend_by_file(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    status, message = import_error(tmp_path)
    assert status and "the backend is 'torch'" in message


def test_keras_2(monkeypatch):
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda name: "2.15.0")
    with pytest.raises(ImportError, match="found Keras 2.15.0: run pip install --upgrade"):
        environment.check_environment()


def test_every_public_name_is_there():
    import mrcnn_tf

    for name in mrcnn_tf.__all__:
        assert getattr(mrcnn_tf, name) is not None
