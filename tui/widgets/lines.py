"""The base of everything drawn here: lines of styled text, of which only the changed ones are drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from tui.text import ASCII, RICH, STYLES, Glyphs, Line, plain, plain_letters


class Painter(Widget):
    """Turns a line into a strip, in the theme's styles, with selection. Subclasses provide :meth:`text_line`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{name}" for name in (*STYLES, "cursor")}

    @property
    def signs(self) -> Glyphs:
        return ASCII if getattr(self.app, "ascii_only", False) else RICH

    def text_line(self, y: int) -> Line:
        """The line at ``y`` of the content."""
        raise NotImplementedError

    def text_lines(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def paint(self, line: Line, width: int, y: int, *, cursor: bool = False) -> Strip:
        base = self.visual_style
        if cursor:
            base += self.get_visual_style("lines--cursor", partial=True)
            if self.get_component_styles("lines--cursor").text_style.reverse:
                base += Style(reverse=True)  # which get_visual_style leaves out
        plain_style = self._rich(base, "")
        if self.signs is ASCII:
            line = [(plain_letters(text), style) for text, style in line]
        segments = [Segment(text, self._rich(base, style) if style else plain_style) for text, style in line if text]
        strip = Strip(segments).adjust_cell_length(width, plain_style)
        selection = self.text_selection
        span = selection.get_span(y) if selection is not None else None
        if span is not None:
            start, end = span[0], span[1] if span[1] != -1 else width
            chosen = self._selection_style()
            before, inside, after = strip.crop(0, start), strip.crop(start, end), strip.crop(end, width)
            strip = Strip.join([before, Strip(Segment.apply_style(inside, post_style=chosen)), after])
        return strip.apply_offsets(0, y)

    def _selection_style(self) -> RichStyle:
        """Of most themes only the background: their foreground is see-through, which on a terminal means invisible."""
        style = self.screen.get_component_rich_style("screen--selection")
        return RichStyle(bgcolor=style.bgcolor) if style.color == style.bgcolor else style

    def _rich(self, base: Style, name: str) -> RichStyle:
        """The style as the terminal gets it, with what is translucent laid over the background."""
        known = self._styles.get((base, name))
        if known is None:
            style = base + self.get_visual_style(f"lines--{name}", partial=True) if name else base
            known = style.rich_style
            self._styles = {**self._styles, (base, name): known}
        return known

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles = {}

    _styles: dict[tuple[Style, str], RichStyle] = {}  # noqa: RUF012  # replaced, never shared

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        text = "\n".join(plain(self.text_line(y)).rstrip() for y in range(self.text_lines()))
        return selection.extract(text), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()


class Lines(Painter):
    """A block of lines. :meth:`show` replaces them."""

    DEFAULT_CSS = "Lines { height: auto; width: 1fr; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # Textual's name
        super().__init__(id=id, classes=classes)
        self.lines: list[Line] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Only lines that differ are drawn again; another number of lines lays the screen out again."""
        old, self.lines = self.lines, list(lines)
        if len(old) != len(self.lines):
            self.refresh(layout=True)
            return
        changed = [y for y, (before, after) in enumerate(zip(old, self.lines, strict=True)) if before != after]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def text_line(self, y: int) -> Line:
        return self.lines[y] if y < len(self.lines) else []

    def text_lines(self) -> int:
        return len(self.lines)

    def render_line(self, y: int) -> Strip:
        return self.paint(self.text_line(y), self.size.width, y)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.lines)
