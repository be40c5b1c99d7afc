"""Grammars in GBNF, llama.cpp's notation, checked before llama.cpp sees them. Pure.

llama.cpp parses a grammar again and may refuse it, but a hostile one can do worse to it than be refused: run out of
stack or memory, or loop for ever (``"a"{5,3}``, thousands of nested brackets, rules that come back to themselves
without reading anything). This check takes what llama.cpp takes, less that. Its names follow
``src/llama-grammar.cpp``: a rule is a list of alternatives, these are lists of elements.
"""

from __future__ import annotations

from plugins.llama_cpp import gbnf_graph
from plugins.llama_cpp.gbnf_graph import END, Rules
from plugins.llama_cpp.gbnf_reader import LAST_CHARACTER, WORD, Bad, Reader
from plugins.llama_cpp.refuse import wrong

MAX_SOURCE = 256 * 1024
MAX_ELEMENTS = 100_000
MAX_RULES = 20_000
MAX_NESTING = 64
# llama.cpp's own: above, it drops an upper bound without a word, and refuses products of repetitions.
MAX_REPETITIONS = 2000
_TERMINAL = -2  # an element that reads something; references are 0 and more


def literal(text: str) -> str:
    """``text`` as a GBNF literal."""
    return '"' + "".join(_LITERAL.get(one, one) for one in text) + '"'


_LITERAL = {
    '"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t",
    **{chr(code): f"\\x{code:02X}" for code in range(32) if chr(code) not in "\n\r\t"}, "\x7f": "\\x7F",
}  # fmt: skip


def check(text: str, name: str = "grammar") -> None:
    """Raises CallFailure (``bad_request``) that says what is wrong and in which line."""
    try:
        parse(text)
    except (Bad, gbnf_graph.Bad) as error:
        raise wrong(name, str(error), code="invalid_grammar") from None


def parse(text: str, *, finite: bool = False) -> Rules:
    """The rules of a grammar that can be used. ``finite``: some text must be able to satisfy it.

    Raises:
        Bad, gbnf_graph.Bad
    """
    if len(text) > MAX_SOURCE:
        raise Bad(f"has {len(text)} characters; at most {MAX_SOURCE} are taken")
    parser = _Parser(text)
    rules = parser.rules()
    gbnf_graph.check(rules)
    if finite and not gbnf_graph.ends(rules, parser.root):
        raise gbnf_graph.Bad("no text can satisfy: it refers to itself without an end")
    return rules


def renamed(text: str, name: str) -> str:
    """A grammar that was checked, its rule ``root`` under another name."""
    parser = _Parser(text)
    parser.rules()
    made, begin = [], 0
    for at in parser.roots:
        made += [text[begin:at], name]
        begin = at + len("root")
    return "".join(made) + text[begin:]


class _Parser(Reader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._symbols: dict[str, int] = {}
        self._rules: dict[int, list[int]] = {}
        self._elements = 0
        self._depth = 0

    @property
    def root(self) -> int:
        return self._symbols["root"]

    def rules(self) -> Rules:
        self._space(lines=True)
        while self._at < self._end:
            self._rule()
        if "root" not in self._symbols:
            raise Bad("has no rule 'root'")
        undefined = [name for name, number in self._symbols.items() if number not in self._rules]
        if undefined:
            raise Bad(f"uses the rule '{undefined[0][:60]}', which it does not define")
        names = {number: name for name, number in self._symbols.items()}
        return Rules([self._rules[number] for number in range(len(self._rules))], names)

    def _rule(self) -> None:
        name = self._word("the name of a rule")
        self._space()
        number = self._symbol(name)
        if not self._text.startswith("::=", self._at):
            raise self._bad("something else than '::='")
        self._at += 3
        self._space(lines=True)
        self._alternatives(name, number, nested=False)
        if self._at < self._end and self._text[self._at] not in "\r\n":
            raise self._bad(f"{self._text[self._at]!r} where a rule could end")
        self._space(lines=True)

    def _alternatives(self, name: str, number: int, *, nested: bool) -> None:
        rule: list[int] = []
        self._sequence(name, rule, nested=nested)
        while self._text[self._at] == "|":
            self._at += 1
            self._space(lines=True)
            rule.append(END)
            self._sequence(name, rule, nested=nested)
        rule.append(END)
        self._count(2)
        self._rules[number] = rule

    def _sequence(self, name: str, rule: list[int], *, nested: bool) -> None:
        last, weight = len(rule), 1  # where the last symbol begins, and how many rules it stands for
        while self._at < self._end:
            one = self._text[self._at]
            if one in "*+?{":
                weight *= self._repeat(one, name, rule, last, weight, nested=nested)
                continue
            begin, symbols = len(rule), len(self._symbols)
            if one == '"':
                self._literal(rule)
            elif one == "[":
                self._class(rule)
            elif one in "<!":
                self._token(rule)
            elif one in WORD:
                rule.append(self._symbol(self._word("a name")))
            elif one == "(":
                self._group(name, rule)
            elif one == ".":
                self._at += 1
                rule.append(_TERMINAL)
            else:
                return
            last, weight = begin, max(1, len(self._symbols) - symbols) if one == "(" else 1
            self._count(1)
            self._space(lines=nested)

    def _literal(self, rule: list[int]) -> None:
        self._at += 1
        while self._text[self._at] != '"':
            self._character("a literal")
            rule.append(_TERMINAL)
            self._count(1)
        self._at += 1

    def _class(self, rule: list[int]) -> None:
        begin = self._at
        self._at += 1
        inverted = self._text[self._at] == "^"
        self._at += inverted
        spans: list[tuple[int, int]] = []
        while self._text[self._at] != "]":
            low = high = self._character("a character class")
            if self._text[self._at] == "-" and self._text[self._at + 1] != "]":
                self._at += 1
                high = self._character("a character class")
            spans.append((low, high))
            self._count(2)
        self._at += 1
        if not spans or any(low > high for low, high in spans) or (inverted and _everything(spans)):
            self._at = begin
            raise self._bad("a character class that no character is in")
        rule.append(_TERMINAL)

    def _token(self, rule: list[int]) -> None:
        begin = self._at
        self._at += self._text[self._at] == "!"
        close = self._text.find(">", self._at)
        inside = self._text[self._at + 1 : close] if self._text[self._at] == "<" and close > 0 else ""
        number = inside[1:-1] if inside.startswith("[") else "0"
        if not inside or not (number.isascii() and number.isdigit() and len(number) < 10) or inside == "[":
            self._at = begin
            raise self._bad("what should be a token, like <[123]> or <name>")
        if inside.startswith("[") and not inside.endswith("]"):
            raise self._bad("a token without its ']'")
        self._at = close + 1
        rule.append(_TERMINAL)

    def _group(self, name: str, rule: list[int]) -> None:
        begin = self._at
        self._at += 1
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._bad(f"more than {MAX_NESTING} brackets in each other")
        self._space(lines=True)
        number = self._made_up(name)
        self._alternatives(name, number, nested=True)
        if self._text[self._at] != ")":
            self._at = begin
            raise self._bad("a '(' without its ')'")
        self._at += 1
        self._depth -= 1
        rule.append(number)

    def _repeat(self, one: str, name: str, rule: list[int], last: int, weight: int, *, nested: bool) -> int:
        """Replaces the last symbol by what stands for its repetition; returns how many rules that takes."""
        if last == len(rule):
            raise self._bad(f"{one!r} with nothing before it to repeat")
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(one, (0, 0))
        if one == "{":
            low, high = self._bounds(nested=nested)
        else:
            self._at += 1
        self._space(lines=nested)
        times = high or low or 1
        if weight * times >= MAX_REPETITIONS:
            raise self._bad(f"repetitions that stand for {MAX_REPETITIONS} rules or more")
        body = rule[last:]
        del rule[last:]
        self._count(len(body) * low)
        rule += body * low
        optional = 1 if high is None else high - low
        previous = -1
        for at in range(optional):
            number = self._made_up(name)
            self._count(len(body) + 3)
            follow = [number] if high is None else [previous] if at else []
            self._rules[number] = [*body, *follow, END, END]
            previous = number
        if optional:
            rule.append(previous)
        return times

    def _bounds(self, *, nested: bool) -> tuple[int, int | None]:
        begin = self._at
        self._at += 1
        self._space(lines=nested)
        low = self._integer()
        high: int | None = low
        self._space(lines=nested)
        if self._text[self._at] == ",":
            self._at += 1
            self._space(lines=nested)
            high = self._integer() if self._text[self._at].isdigit() else None
            self._space(lines=nested)
        if self._text[self._at] != "}":
            raise self._bad("a '{' without its '}'")
        self._at += 1
        if max(low, high or 0) > MAX_REPETITIONS or (high is not None and high < low):
            self._at = begin
            raise self._bad(f"bounds that are not 0 ≤ lower ≤ upper ≤ {MAX_REPETITIONS}")
        return low, high

    # rules

    def _symbol(self, name: str) -> int:
        return self._symbols.setdefault(name, len(self._symbols))

    def _made_up(self, name: str) -> int:
        """A rule of llama.cpp's own making; no rule in a text can have an underscore in its name."""
        return self._symbol(f"{name}_{len(self._symbols)}")

    def _count(self, elements: int) -> None:
        self._elements += elements
        if self._elements > MAX_ELEMENTS or len(self._symbols) > MAX_RULES:
            raise Bad(f"is too large: more than {MAX_ELEMENTS} elements or {MAX_RULES} rules, repetitions written out")


def _everything(spans: list[tuple[int, int]]) -> bool:
    """Whether the spans leave no character out."""
    reached = 0
    for low, high in sorted(spans):
        if low > reached + 1:
            return False
        reached = max(reached, high)
    return reached >= LAST_CHARACTER
