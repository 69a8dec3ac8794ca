"""Datasets of other tools to COCO's json, and back: a module for each format.

Each has a function that reads the format into a `dataset.Dataset`, whose `write(path)` gives COCO's json, and one that
writes it from a `coco.CocoJson`, which `coco.read_coco` reads: `labelme.read_labelme` and `write_labelme`, and so on in
`via`, `yolo`, `voc`, `label_map_folders` and `mask_folders`. To add a format, add such a module.

Readers take `source`, the file or folder to read; `images`, the folder that file names will be relative to (None for
that of the source); and `names`, the `dataset.ClassNames` that classes get their ids from and others are left out
(`dataset.read_names` reads them; None for any class). What can't be used is noted in the Dataset's `problems`. They
raise UserError if the source isn't there, is packed, or isn't of the format.

Writers take the CocoJson, where they note what the format can't hold; `out`, a new folder; `images`, the folder of the
images; and `copy_images`, whether images go into the new folder, too. Images that aren't there are left out then. They
raise UserError if `out` has files already, there is no folder of images, or two images would get the same file.

The doctor uses `inputs` to tell what a file is that isn't COCO's.
"""
