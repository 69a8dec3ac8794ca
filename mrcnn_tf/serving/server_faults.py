"""What can go wrong between a client and a TensorFlow Serving, and what to tell the user."""

import random
import time

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between attempts, doubled each time
SAID = 300  # characters of a server's answer that are repeated

SENTENCES = {
    "busy": "{server} can't be reached or takes no more requests ({said}): start it, check host and port "
    "(REST is 8501 by default, gRPC 8500), or wait.",
    "late": "{server} didn't answer for '{model}' in {timeout:g} s ({said}): allow more with timeout=, send fewer "
    "images at once, or give the server more cores.",
    "unknown": "{server} has no model '{model}' ({said}): give the name and version under which it serves the export.",
    "unfit": "{server} refuses the request for '{model}' ({said}): it must serve what mrcnn-tf export saved-model "
    "wrote.",
    "too_large": "{server} refuses so large a request for '{model}' ({said}): send fewer images at once, or gRPC.",
    "garbled": "{server} doesn't answer like a TensorFlow Serving with '{model}' ({said}): check host, port and "
    "protocol (REST is 8501 by default, gRPC 8500).",
    "failed": "{server} failed on '{model}' ({said}): see the server's log.",
}


class ServerFault(Exception):
    """An answer that isn't one: `kind` is a key of SENTENCES, `said` the server's or the system's own words."""

    def __init__(self, kind, said):
        super().__init__(kind, said)
        self.kind, self.said = kind, said

    def sentence(self, server, model, timeout):
        """For the user: what happened, with which server and model, and the remedy."""
        said = " ".join(str(self.said).split())[:SAID].rstrip(".:") or "without a reason"
        return SENTENCES[self.kind].format(server=server, model=model, timeout=timeout, said=said)


def with_retries(call, retries):
    """The result of `call()`; after a "busy" `ServerFault` up to `retries` attempts more, with growing pauses between.

    The pauses are random up to a factor of two, so that clients which were refused together don't come back together.
    """
    for attempt in range(retries):
        try:
            return call()
        except ServerFault as fault:
            if fault.kind != "busy":
                raise
        time.sleep(min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1))
    return call()
