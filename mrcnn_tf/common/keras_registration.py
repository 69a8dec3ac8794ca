"""Imports the modules with our Keras classes once Keras is imported, so that `keras.saving.load_model` finds them.

TensorFlow imports Keras, so this may happen in the midst of an import of ours. Therefore the rooms below model/ that
use TensorFlow import Keras in their `__init__`, before any module of theirs has begun.

Keras knows a class when the module that registers it has been imported. To import ours with the package itself would
make everything that needs no Keras wait seconds for it; to wait for their first use would leave a user who only loads
a saved model with "Unknown layer".
"""

import importlib
import importlib.abc
import sys


def import_with_keras(*modules):
    """Imports modules by name: now if Keras is imported already, else right after it is."""
    if "keras" in sys.modules:
        _import_all(modules)
    else:
        sys.meta_path.insert(0, _AfterKeras(modules))


def _import_all(modules):
    for module in modules:
        importlib.import_module(module)


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds Keras as Python would without it, and imports `modules` when Keras has run; it finds nothing else."""

    def __init__(self, modules):
        self.modules = modules

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None:
            run = spec.loader.exec_module

            def run_then_import(module):
                run(module)
                sys.meta_path.remove(self)
                _import_all(self.modules)

            spec.loader.exec_module = run_then_import
        return spec
