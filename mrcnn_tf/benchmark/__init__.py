"""Speed, memory and start-up of mrcnn_tf on this machine's processor, beside the peers that are installed.

Each measurement runs in processes of its own (`worker`); the process that starts them (`processes`, `suite`) never
imports TensorFlow or PyTorch.
"""
