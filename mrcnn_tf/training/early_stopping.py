"""Stopping when the figure that matters no longer rises."""

import keras


def out_of_patience(history, figure, patience):
    """Whether the last `patience` evaluations have all missed the best figure before them.

    It follows from the history alone, so a run that was interrupted decides as one that wasn't. Epochs without the
    figure, which weren't evaluated, don't count.

    Args:
        history: a dictionary of figures for each epoch.
        figure: the name of one that should rise, such as "val_segm_AP".
        patience: None never stops.
    """
    values = [epoch[figure] for epoch in history if epoch.get(figure) is not None]
    if patience is None or not values:
        return False
    return len(values) - 1 - values.index(max(values)) >= patience


class EarlyStopping(keras.callbacks.Callback):
    """Ends `fit` after an epoch that `out_of_patience` is sorry for.

    Args:
        history: a `History`, which must come before this callback.
        figure: the name of a figure that should rise.
        patience: evaluations.

    Attributes:
        stopped: whether it did.
    """

    def __init__(self, history, figure, patience):
        super().__init__()
        self.history, self.figure, self.patience = history, figure, patience
        self.stopped = False

    def on_epoch_end(self, epoch, logs=None):
        self.stopped = out_of_patience(self.history.epochs, self.figure, self.patience)
        if self.stopped:
            self.model.stop_training = True
