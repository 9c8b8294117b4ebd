"""Why a search ended, in the words of ``ended``; and whether it came to any variant. Pure."""

from __future__ import annotations

TIME_UP = "time is up"
_CUT_OFF = "was cut off"
NO_TIME_LEFT = "nothing that is left to try should end in the time that is left"


def is_out_of_time(ended: str, trials: int) -> bool:
    """Whether time ended a search after ``trials`` records before it had any variant's: the baseline's is the first.

    >>> is_out_of_time("time is up, but for 4 s to measure the finalists again", 1)
    True
    >>> is_out_of_time("every variant of this space was tried", 1)
    False
    """
    return trials <= 1 and ended.startswith((TIME_UP, NO_TIME_LEFT))


def cut_off_text(variant: str, seconds: float) -> str:
    """What ``ended`` says besides where the time ended the only trial there was, of ``variant``."""
    return f", and the trial of {variant} {_CUT_OFF} after {seconds:.0f} s"


def nothing_text(ended: str) -> str:
    """What was tried in a search that ``is_out_of_time``: nothing, or what didn't come to its end.

    >>> nothing_text("time is up")
    'no variant was tried'
    >>> nothing_text("time is up" + cut_off_text("the model as given on openvino, 2 threads", 31.0))
    'no variant came to its end'
    """
    return "no variant came to its end" if is_cut_off(ended) else "no variant was tried"


def is_cut_off(ended: str) -> bool:
    """Whether time ended the only trial there was.

    >>> is_cut_off("time is up")
    False
    """
    return f" {_CUT_OFF} after " in ended
