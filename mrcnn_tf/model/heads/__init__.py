"""Heads: boxes and classes, masks, keypoints of RoIs, and a class for each pixel.

`head.Head` says what the package asks of each; the other files have one each.
"""
