"""Student's t without scipy: the serving side loads numpy alone."""

from __future__ import annotations

import math
from statistics import NormalDist


def t_quantile(p: float, df: float) -> float:
    """Student's t quantile for ``p`` > 0.5: exact for 1 and 2 degrees of freedom, else Hill's expansion (1970).

    ``df`` need not be whole; from 1 up.

    >>> round(t_quantile(0.975, 9), 3)
    2.262
    """
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    two_tail = 2 * (1 - p)
    a = 1 / (df - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * df
    y = (d * two_tail) ** (2 / df)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(two_tail / 2)
        y = x**2
        if df < 5:
            c += 0.3 * (df - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y**2)
    else:
        y = ((1 / (((df + 6) / (df * y) - 0.089 * d - 0.822) * (df + 2) * 3) + 0.5 / (df + 4)) * y - 1) * (df + 1) / (
            df + 2
        ) + 1 / y
    return math.sqrt(df * y)
