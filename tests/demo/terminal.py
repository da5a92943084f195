"""How the demonstration speaks: numbered steps, commands as they are typed, what they answered, and checks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.text import Text

_STEPS = 6


class DemoFailed(Exception):
    """Something did not come out as the demonstration says."""


class Terminal:
    """Writes for a tired reader: plain sentences, grey output, green ticks."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._step = 0

    def step(self, title: str, *sentences: str) -> None:
        """Begin the next step."""
        self._step += 1
        self._out.print(Text(f"\n{self._step}/{_STEPS}  {title}", style="bold"))
        for sentence in sentences:
            self.say(sentence)

    def say(self, text: str) -> None:
        """A sentence."""
        self._out.print(Text(f"     {text}"))

    def command(self, words: tuple[str, ...], stdin: str | None = None, *, after: str = "") -> None:
        """A command as somebody would type it."""
        source = "" if stdin is None else f"printf %s {shlex.quote(stdin)} | "
        self._out.print(Text(f"   $ {source}kbs {shlex.join(words)}{after}", style="cyan"))

    def shell(self, text: str) -> None:
        """Another command, done by the demonstration itself."""
        self._out.print(Text(f"   $ {text}", style="cyan"))

    def output(self, text: str) -> None:
        """What a command wrote."""
        for line in text.splitlines():
            self._out.print(Text(f"     {line}", style="dim"))

    def facts(self, members: Mapping[str, object]) -> None:
        """Names and values, one a line."""
        width = max(map(len, members))
        self.output("\n".join(f"{name:<{width}}  {value}" for name, value in members.items()))

    def check(self, text: str, good: bool) -> None:
        """A tick, or the end.

        Raises:
            DemoFailed: it is not so.
        """
        if not good:
            self._out.print(Text(f"   ✗ {text}", style="bold red"))
            raise DemoFailed(text)
        self._out.print(Text(f"   ✓ {text}", style="green"))

    def check_all(self, checks: Iterator[tuple[str, bool]]) -> None:
        """Several."""
        for text, good in checks:
            self.check(text, good)

    def end(self, text: str, *, good: bool) -> None:
        """The last line."""
        self._out.print(Text(f"\n{text}", style="bold green" if good else "bold red"))
