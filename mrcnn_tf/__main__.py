"""`python -m mrcnn_tf`: the command line where no script is on the PATH."""

from mrcnn_tf.cli import main

if __name__ == "__main__":
    main()
