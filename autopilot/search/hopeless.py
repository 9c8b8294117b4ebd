"""Whether a variant can still win: it is given up before its costly pass where several are clearly better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autopilot.budget import Judgement
from autopilot.profile import Measurement
from autopilot.result import TrialRecord
from autopilot.search.finalists import line_up
from autopilot.search.ranking import Ranking

# A variant is given up before its costly pass when this many in budget beat it by more than this share.
ENOUGH_BETTER = 3
CLEARLY = 0.05


def hopeless(records: Sequence[TrialRecord], ranking: Ranking, measured: Mapping[str, Measurement]) -> str | None:
    """Why a variant can't win whatever its quality: several of ``records`` in budget are clearly better already.

    Several, since the best may fail its verification.
    """
    figures = ranking.all_seen(measured)
    if not all(math.isfinite(x.value) for x in figures):
        return None  # an objective that isn't known yet may be its strength
    floors = [x.low - CLEARLY * abs(x.low) for x in figures]
    better = [
        r
        for r in line_up(records, ranking)
        if r.verdict is not None
        and r.verdict.overall is Judgement.IN
        and all(x.high < floor for x, floor in zip(ranking.all_seen(r.measured), floors, strict=True))
    ]
    if len(better) < ENOUGH_BETTER:
        return None
    axes = " and ".join(ranking.axes)
    return f"{len(better)} variants in budget are clearly better on {axes}, so it was not scored"
