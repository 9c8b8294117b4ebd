"""Tables that lose no figure where the terminal is too narrow for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# Wider than any table of ours, so that it is measured as it would like to be.
_UNBOUNDED_WIDTH = 1000


@dataclass(frozen=True, slots=True)
class OrStacked:
    """``table`` where it fits; else a paragraph a row, ``header value`` after its first cell.

    Rich would end what doesn't fit in dots: ``0.2…`` of 0.2661 is a wrong figure.
    """

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        wanted = Measurement.get(console, options.update(width=_UNBOUNDED_WIDTH), self.table).maximum
        if wanted <= options.max_width:
            yield self.table
            return
        headers = [_text(column.header) for column in self.table.columns]
        yield headers[0]  # it may hold the unit of all that follows
        for first, *others in zip(*(column.cells for column in self.table.columns), strict=True):
            yield _text(first)
            told = zip(headers[1:], map(_text, others), strict=True)
            pairs = [Text.assemble(header, " ", cell) for header, cell in told if cell.plain]
            if pairs:
                yield Padding(Text(", ").join(pairs), (0, 0, 0, 2))


def _text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))
