"""The settings of a run.

- `settings`: the tree of dataclasses (`Config`, `ModelConfig`, `DataConfig`, ...), each setting with its default, its
  valid values and its meaning; `CONVENTIONS`, the presets of the reference systems.
- `load`: `load_config` reads a YAML file with overrides; `list_config_names` lists the files that the package ships;
- `checks` is for `load` alone.
"""
