"""Why a search ended, in the words of ``ended``; and whether it came to any variant. Pure."""

from __future__ import annotations

TIME_UP = "time is up"
NO_TIME_LEFT = "nothing that is left to try should end in the time that is left"


def is_out_of_time(ended: str, trials: int) -> bool:
    """Whether time ended a search after ``trials`` records before it tried any variant: the baseline is the first.

    >>> is_out_of_time("time is up, but for 4 s to measure the finalists again", 1)
    True
    >>> is_out_of_time("every variant of this space was tried", 1)
    False
    """
    return trials <= 1 and ended.startswith((TIME_UP, NO_TIME_LEFT))
