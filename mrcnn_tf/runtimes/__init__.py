"""Exported models where they run, with the same `detect` as a model."""
