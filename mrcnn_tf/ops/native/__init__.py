"""Our own TensorFlow operations: compiled from `custom_ops/` on the machine that uses them, cached, and loaded.

`library` gives the loaded operations, and the contexts in which graphs do without them; `builder` compiles.
"""
