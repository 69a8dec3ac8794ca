"""What shows and explains: batches, one image's way through a model, a dataset and a model's mistakes on it.

`show_batch` draws batches, samples and results; `diagnosis` says why an image has the detections that it has;
`inspection` writes the HTML report of `mrcnn-tf inspect`.
"""
