"""Heads: boxes and classes, masks, keypoints of RoIs, and a class for each pixel.

Each file has a layer with `call`, `targets` where it learns from RoIs, and `class_variables`, the weights whose shapes
depend on the classes.
"""
