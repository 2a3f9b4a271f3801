"""What shows itself: by rich or as text in a terminal, as HTML in a notebook, as a data frame."""

from __future__ import annotations

import abc
import html
import io
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mer_zoo.errors import MerZooError

if TYPE_CHECKING:
    import pandas
    from rich.console import Console, ConsoleOptions, RenderResult

MISSING = "–"
"""What a cell without content shows."""

STYLES = {"title": "bold", "note": "dim", "warning": "yellow", "alarm": "bold red", "": ""}
"""Style of words -> how rich writes them."""


@dataclass(frozen=True)
class Words:
    """A paragraph; an empty one is an empty line in a terminal.

    Attributes:
        text: plain; line breaks count.
        style: one of `STYLES`.
    """

    text: str = ""
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        headings: one per column; all empty: a table without a head.
        rows: the cells.
        title: what stands above.
        numbers: columns that are set to the right and never broken.
        aside: columns that go to a table of their own, behind the first column, where a terminal is too narrow.
        styles: style of every row as rich names it, or none at all.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    numbers: Collection[int] = ()
    aside: Collection[int] = ()
    styles: Sequence[str] = ()

    def only(self, columns: Sequence[int]) -> Table:
        """Return some of the columns, without rows that have nothing there but in the first."""
        kept = [i for i, row in enumerate(self.rows) if any(row[c] != MISSING for c in columns[1:])]
        return Table(
            [self.headings[c] for c in columns],
            [[self.rows[i][c] for c in columns] for i in kept],
            numbers=[i for i, c in enumerate(columns) if c in self.numbers],
            styles=[self.styles[i] for i in kept] if self.styles else (),
        )


class Shown(abc.ABC):
    """Base of what a user gets to see; `print` it, `rich.print` it, or let a notebook show it.

    Names are shown as they are: neither HTML, nor rich's markup, nor a terminal's escapes in them are obeyed.

    Example:
        >>> class Scores(Shown):
        ...     def shown(self):
        ...         yield Words("Two <models>", "title")
        ...         yield Table(["model", "F1"], [["a", "70.0"], ["b", "68.5"]], numbers=[1])
        >>> print(Scores())
        Two <models>
        model   F1
        a     70.0
        b     68.5
        >>> Scores()._repr_html_().startswith("<div><p><b>Two &lt;models&gt;</b></p><table>")
        True
    """

    @abc.abstractmethod
    def shown(self) -> Iterator[Words | Table]:
        """Yield what is to be seen, from top to bottom."""

    def records(self) -> list[dict[str, Any]]:
        """Return one mapping per row of the data frame; by default the rows of the first table."""
        table = next(block for block in self.shown() if isinstance(block, Table))
        return [dict(zip(table.headings, row, strict=True)) for row in table.rows]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the rows as a pandas data frame.

        Raises:
            MerZooError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MerZooError("to_dataframe: needs pandas. Install it: pip install pandas") from None
        return pandas.DataFrame.from_records(self.records())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for block in self.shown():
            if isinstance(block, Words):
                yield Text(visible(block.text, "\n\t"), STYLES[block.style])
                continue
            if block.title:
                yield Text(visible(block.title), "cyan")
            yield from _fitting(block, options.max_width)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        width = shutil.get_terminal_size((100, 24)).columns
        plain: dict[str, Any] = {"color_system": None, "force_jupyter": False, "emoji": False, "highlight": False}
        Console(file=text, width=width, **plain).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<div>{''.join(map(_html, self.shown()))}</div>"


def visible(text: str, keep: str = "") -> str:
    """Write out what a terminal or browser would obey instead of show: escapes, line breaks, changes of direction.

    Args:
        text: of any origin.
        keep: such characters to leave as they are.

    Example:
        >>> visible("a\\x1b[31m")
        'a\\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def _fitting(table: Table, room: int) -> Iterator[Any]:
    """Yield a table, or two where one is too wide; no word is broken where there is a way around it."""
    columns = range(len(table.headings))
    least, most = _least(table), _most(table)
    fits = sum(most) + 2 * len(most) <= room
    if fits or (not table.aside and sum(least) + len(least) <= room):
        yield _rich(table, room, gap=2 if fits else 1)
        return
    # what both tables begin with: the first column, or all that tell the rows apart
    both = [0] if table.aside else [c for c in columns if c not in table.numbers]
    here = [c for c in columns if c not in table.aside]
    while len({*here} - {*both}) > 1 and sum(least[c] + 1 for c in here) > room:
        here.remove(max({*here} - {*both}))
    if sum(least[c] + 1 for c in here) > room:  # some word is too long for any way
        here = [c for c in columns if c not in table.aside]
    yield _rich(table.only(here), room, gap=1)
    if there := {*columns} - {*here}:
        yield _rich(table.only(sorted({*both} | there)), room, gap=1)


def _most(table: Table) -> list[int]:
    """Columns of a terminal that the columns of a table would fill."""
    from rich.cells import cell_len

    return [max(cell_len(visible(text)) for text in texts) for texts in zip(table.headings, *table.rows, strict=True)]


def _least(table: Table, whole: bool = True) -> list[int]:
    """What they need, so that no number is broken, and no word if they are to stay `whole`; Chinese may be broken."""
    from rich.cells import cell_len

    found = []
    for i, (heading, most) in enumerate(zip(table.headings, _most(table), strict=True)):
        cells = [visible(row[i]) for row in table.rows]
        names = [word for cell in cells for word in cell.split() if whole and cell_len(word) == len(word)]
        words = [*heading.split(), *(cells if i in table.numbers else names)]
        found.append(min(most, max([0 if i in table.numbers else 8, *map(cell_len, words)])))
    return found


def _rich(table: Table, room: int, gap: int) -> Any:
    """Numbers stay whole, and words if there is room; a long name, heading or sentence is wrapped."""
    from rich import table as rich
    from rich.text import Text

    most, widths = _most(table), _least(table)
    if sum(widths) + gap * len(widths) > room:
        widths = _least(table, whole=False)
    left = room - sum(widths) - gap * len(widths)
    while left > 0 and (growing := [i for i, width in enumerate(widths) if width < most[i]][:left]):
        for i in growing:
            widths[i] += 1
        left -= len(growing)
    made = rich.Table(box=None, padding=(0, gap, 0, 0), header_style="bold", show_header=any(table.headings))
    for i, heading in enumerate(table.headings):
        made.add_column(heading, justify="right" if i in table.numbers else "left", overflow="fold", width=widths[i])
    for i, row in enumerate(table.rows):
        made.add_row(*(Text(visible(cell)) for cell in row), style=table.styles[i] if table.styles else None)
    return made


def _html(block: Words | Table) -> str:
    if isinstance(block, Words):
        text = html.escape(visible(block.text, "\n\t")).replace("\n", "<br>")
        form = {"title": "<p><b>{}</b></p>", "alarm": "<p><b>{}</b></p>", "note": "<p><small>{}</small></p>"}
        return form.get(block.style, "<p>{}</p>").format(text) if text else ""

    def line(texts: Sequence[str], tag: str) -> str:
        sides = ("right" if i in block.numbers else "left" for i in range(len(texts)))
        made = zip(sides, (html.escape(visible(text)) for text in texts), strict=True)
        return "<tr>" + "".join(f'<{tag} style="text-align:{side}">{text}</{tag}>' for side, text in made) + "</tr>"

    caption = f"<caption>{html.escape(visible(block.title))}</caption>" if block.title else ""
    head = f"<thead>{line(block.headings, 'th')}</thead>" if any(block.headings) else ""
    return f"<table>{caption}{head}<tbody>{''.join(line(row, 'td') for row in block.rows)}</tbody></table>"
