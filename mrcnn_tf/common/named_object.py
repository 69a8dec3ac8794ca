"""Functions and classes that a user wrote and names by module, as `my_package.my_module:Name`."""

import contextlib
import difflib
import importlib
import os
import sys

from mrcnn_tf.common.errors import UserError


def import_named(name, what):
    """Imports the function or class called `package.module:Name`; the current folder counts as one of Python's.

    What the module itself raises when it is imported passes as it is, an ImportError of one of its imports included.

    Args:
        name: str.
        what: what it is to be, at the beginning of a sentence, such as "Reader" or "Setting 'model.backbone.callable'".

    Returns:
        The object, which can be called.

    Raises:
        UserError: the name isn't of that form, there is no such module, nothing of that name in it, or it can't be
            called.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise UserError(f"{what} {name!r} isn't of the form package.module:Name: give it as my_package.my_module:Name.")
    try:
        with _current_folder_first():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):  # the module is there, and what it imports isn't
            raise
        raise UserError(
            f"{what} {name!r} is in no module that Python finds: there is no {error.name!r} in {os.getcwd()} or among "
            "what is installed, so correct the name or change to the folder that holds it."
        ) from None
    where = getattr(module, "__file__", None) or module_name
    if not hasattr(module, attribute):
        similar = difflib.get_close_matches(attribute, dir(module), n=1)
        remedy = f"did you mean {similar[0]!r}" if similar else "define it there"
        raise UserError(f"{what} {name!r} isn't in {where}: {remedy}.")
    found = getattr(module, attribute)
    if not callable(found):
        raise UserError(
            f"{what} {name!r} in {where} is of type {type(found).__name__}: give the name of a function or class."
        )
    return found


@contextlib.contextmanager
def _current_folder_first():
    """Lets Python look for modules in the current folder first, as it does for a script but not for a command."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()  # of a module that was written a moment ago
    try:
        yield
    finally:
        sys.path.remove(folder)
