"""Importers of published weights: readers of their files, and what each format makes of the tensors."""
