"""Free text in GBNF, up to where it ends: a grammar has no word for "anything but this". Pure."""

from __future__ import annotations


def until(mark: str, name: str) -> dict[str, str]:
    """Rules, the first called ``name``, for any text up to and with the first ``mark``.

    One rule for each number of the mark's characters that were just read (the automaton of Knuth, Morris and Pratt):
    a text that nearly is the mark, like ``<</think>``, is followed as the reader behind the grammar follows it.
    """
    rules = {}
    for state in range(len(mark)):
        onward = {}
        for one in dict.fromkeys(mark):
            reached = _reached(mark, mark[:state] + one)
            if reached:
                onward[one] = reached
        ways = [f"[^{''.join(map(_in_class, onward))}] {name}"]
        ways += [f"[{_in_class(one)}]{_rule(name, reached, mark)}" for one, reached in onward.items()]
        rules[name if state == 0 else f"{name}-{state}"] = " | ".join(ways)
    return rules


def _reached(mark: str, text: str) -> int:
    """Length of the longest end of ``text`` that begins ``mark``."""
    return next(size for size in range(min(len(mark), len(text)), -1, -1) if text.endswith(mark[:size]))


def _rule(name: str, reached: int, mark: str) -> str:
    return "" if reached == len(mark) else f" {name}-{reached}"


def _in_class(one: str) -> str:
    return one if one.isascii() and one.isalnum() else f"\\U{ord(one):08X}"
