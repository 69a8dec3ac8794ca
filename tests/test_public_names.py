"""What `import mrcnn_tf` gives: all public names, classes that Keras knows, and nothing heavy before it is needed."""

import ast
import pathlib
import subprocess
import sys

import pytest

import mrcnn_tf

ROOT = pathlib.Path(mrcnn_tf.__file__).parent
COUNT = "\nimport keras\nprint(sum(name.startswith('mrcnn_tf>') for name in keras.saving.get_custom_objects()))"


def run(program, *arguments, **options):
    done = subprocess.run([sys.executable, *arguments, "-c", program], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_there():
    for name in mrcnn_tf.__all__:
        assert getattr(mrcnn_tf, name) is not None
        assert name in dir(mrcnn_tf)
    assert {"MaskRCNN", "load_model", "ops", "parts"} <= set(mrcnn_tf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'MaskRCN'"):
        mrcnn_tf.MaskRCN  # noqa: B018


def test_every_part_is_there_and_explained():
    for name in mrcnn_tf.parts.__all__:
        assert getattr(mrcnn_tf.parts, name).__name__ == name
        assert f"`{name}`" in mrcnn_tf.parts.__doc__, name


@pytest.mark.parametrize(
    "imports",
    [
        "import mrcnn_tf, keras",
        "import keras, mrcnn_tf",
        "import mrcnn_tf, tensorflow",
        "import mrcnn_tf.ops.boxes",
        "from mrcnn_tf.parts import FPN, ResNet; assert FPN(ResNet(10)).strides['P2'] == 4",
        "import mrcnn_tf.results.detections",
    ],
)
def test_keras_knows_the_classes_in_whatever_order_things_are_imported(imports):
    assert int(run(imports + COUNT)) >= 25


def test_modules_below_the_model_import_keras_before_anything_of_theirs():
    """Of a room that uses TensorFlow and that the model is made of, `__init__` imports Keras first."""
    needed, todo = set(), ["mrcnn_tf.model.mask_rcnn"]
    uses_tensorflow = set()
    while todo:
        module = todo.pop()
        file = ROOT.parent / (module.replace(".", "/") + ".py")
        if module in needed or not file.exists():
            continue
        needed.add(module)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith("mrcnn_tf"):
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if isinstance(node, ast.Import) and {"tensorflow", "keras"} & {alias.name for alias in node.names}:
                uses_tensorflow.add(module.split(".")[1])
    assert {"ops", "results"} <= uses_tensorflow
    for room in uses_tensorflow - {"model"}:  # whose __init__ imports the model itself
        first = ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8")).body[1]
        assert isinstance(first, ast.Import) and first.names[0].name == "keras", room


@pytest.mark.parametrize("module", ["", ".cli", ".datasets.doctor.validation", ".config.load", ".serving.interpreter"])
def test_what_needs_no_tensorflow_does_not_import_it(module):
    assert run(f"import sys, mrcnn_tf{module}; print('tensorflow' in sys.modules)") == "False"


def test_a_script_may_have_any_name(tmp_path):
    script = tmp_path / "mrcnn-tf.py"
    script.write_text("import mrcnn_tf; print(mrcnn_tf.load_config('mask_rcnn_r50_fpn').model.backbone.depth)")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stdout.strip() == "50", done.stderr


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "mrcnn_tf", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "predict" in done.stdout
