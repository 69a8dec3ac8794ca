"""Objects that a user names as package.module:Name."""

import importlib


def import_named(name, what):
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
