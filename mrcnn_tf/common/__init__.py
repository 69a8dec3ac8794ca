"""What every room may use; nothing here imports TensorFlow or another room.

- `errors`: `UserError`, the one sentence for a mistake that a user can mend, and `NonFiniteLoss`.
- `files`: `atomic_write`, `cache_folder`, `sha256`, and `refuse_archive` where a folder or json is wanted.
- `json_stream`: `stream_arrays` and `stream_members` read a large json piece by piece, without holding the file.
- `json_values`: what numbers look like in other programs' jsons.
- `categories`: `Category`, how lists of them are read, and their keypoints' channels.
- `problems`: `Problem` and `report_problems`; `CONSOLE`, `print_line` and `show_progress` for what is said on stderr.
- `named_object`: `import_named`, a user's function or class by its name `my_package.my_module:Name`.
- `keras_registration`: makes our classes known to `keras.saving.load_model` without importing them.
- `environment`: the version, and `check_environment` at import.
"""
