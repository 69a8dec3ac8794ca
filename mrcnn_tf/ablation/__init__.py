"""The paper's ablations at small scale: a table's rows, trained under equal budgets on generated pictures.

The process that plans and compares (`runner`, `report`) never imports TensorFlow; each training is a process of its own
(`worker`).
"""
