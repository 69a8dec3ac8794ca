"""Our own TensorFlow operations: compiled from `custom_ops/` on the machine that uses them, cached, and loaded."""





