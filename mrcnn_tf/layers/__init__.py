"""Keras layers, one file for each part of the paper's architecture."""
