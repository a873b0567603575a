"""A judge that fails at random: one response in fifty is not judged, in one of five ways."""

import os
import random
import time

SHARE = 0.02  # below the bound of 5 % at which a run stops


def score(response, answer):
    """1 for the text after the last `=`; now and then nothing, no number, an error, a hang, or a dead process."""
    luck = random.random()
    if luck < SHARE * 0.9:
        return [None, float("nan"), float("inf"), "yes"][int(luck * 1e6) % 4]
    if luck < SHARE * 0.99:
        raise RuntimeError("the judge is tired")
    if luck < SHARE * 0.995:
        time.sleep(60)
    if luck < SHARE:
        os._exit(3)
    return float(response.rpartition("=")[2].strip() == answer)
