"""A table whose rows change while somebody looks at them: the cursor stays on its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from scalesim_daemon.ctl.top.rows import Row
from scalesim_daemon.ctl.views.texts import line


class Listing(DataTable[Text]):
    """Rows by key, of which only what differs is drawn anew."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "scroll_top", show=False),
        Binding("end", "scroll_bottom", show=False),
    ]

    def __init__(self, columns: Sequence[str], *, id: str) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._titles = columns
        self._shown: list[Row] = []

    def on_mount(self) -> None:
        """Make the columns."""
        self.add_columns(*self._titles)

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor, None where there is none."""
        return self._shown[self.cursor_row][0] if 0 <= self.cursor_row < len(self._shown) else None

    def put(self, rows: list[Row]) -> None:
        """Show these rows."""
        if [key for key, _ in rows] == [key for key, _ in self._shown]:
            self._change(rows)
        else:
            self._replace(rows)
        self._shown = rows

    def _change(self, rows: list[Row]) -> None:
        for place, ((_, before), (_, after)) in enumerate(zip(self._shown, rows, strict=True)):
            for column, (old, new) in enumerate(zip(before, after, strict=True)):
                if old != new:
                    self.update_cell_at(Coordinate(place, column), line(new), update_width=True)

    def _replace(self, rows: list[Row]) -> None:
        selected, place, scrolled = self.selected, self.cursor_row, self.scroll_y
        self.clear()
        for key, cells in rows:
            self.add_row(*map(line, cells), key=key)
        keys = [key for key, _ in rows]
        row = keys.index(selected) if selected in keys else min(place, len(rows) - 1)
        self.scroll_to(y=scrolled, animate=False)
        self.move_cursor(row=max(row, 0))
