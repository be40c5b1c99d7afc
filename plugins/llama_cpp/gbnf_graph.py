"""Whether llama.cpp can walk a grammar's rules in bounded time. Pure.

llama.cpp keeps all the ways on which a grammar may go on as stacks. Before each character it follows rule references
until every stack begins with something that is read. That never ends where a rule comes back to itself without
reading anything and something is left to do behind it, and it takes long where very many ways are open at once.
"""

from __future__ import annotations

from collections.abc import Iterator

END = -1  # ends an alternative; an empty one is nothing but its END
# Ways that may be open at one place: llama.cpp compares each new stack with all others.
MAX_WAYS = 4096
# llama.cpp follows first references with recursion of its own.
MAX_DEPTH = 2500


class Bad(Exception):
    """What is wrong with the grammar."""


class Rules:
    """``rules[n]``: elements of rule n; an element of 0 or more refers to that rule, :data:`END` ends an alternative,
    anything else reads a character or token. ``names`` by number."""

    def __init__(self, rules: list[list[int]], names: dict[int, str]) -> None:
        self.rules = rules
        self.names = names

    def name(self, number: int) -> str:
        return self.names[number].split("_")[0][:60]

    def alternatives(self, number: int) -> Iterator[list[int]]:
        rule, begin = self.rules[number], 0
        while begin < len(rule):
            end = rule.index(END, begin)
            yield rule[begin:end]
            begin = end + 1


def check(rules: Rules) -> None:
    """Raises Bad."""
    direct = {number for number in range(len(rules.rules)) if any(not one for one in rules.alternatives(number))}
    empty = _may_be_empty(rules)
    first: list[list[int]] = []
    growing: set[tuple[int, int]] = set()
    for number in range(len(rules.rules)):
        edges = []
        for alternative in rules.alternatives(number):
            plain = True  # llama.cpp itself looks behind rules with an empty alternative of their own only
            for at, element in enumerate(alternative):
                if element < 0:
                    break
                edges.append(element)
                if at + 1 < len(alternative) or plain:
                    growing.add((number, element))
                plain = plain and element in direct
                if element not in empty:
                    break
        first.append(edges)
    component, order = _components(first)
    for number, edges in enumerate(first):
        for other in edges:
            if component[number] == component[other] and (number, other) in growing:
                raise Bad(f"is left-recursive: the rule '{rules.name(number)}' can come back to itself unread")
    _check_depth(first, component, order)
    _check_ways(rules, empty, component, order)


def ends(rules: Rules, root: int) -> bool:
    """Whether some finite text satisfies rule ``root``."""
    return root in _may_be_empty(rules, reading=True)


def _may_be_empty(rules: Rules, *, reading: bool = False) -> set[int]:
    """Rules that can be done with: without reading anything, or at all (``reading``)."""
    empty: set[int] = set()
    users: dict[int, list[tuple[int, list[int]]]] = {}
    todo = []
    for number in range(len(rules.rules)):
        for alternative in rules.alternatives(number):
            needed = {element for element in alternative if element >= 0 or not reading}
            if any(element < 0 for element in needed):
                continue
            left = [len(needed)]
            for element in needed:
                users.setdefault(element, []).append((number, left))
            if not needed and number not in empty:
                empty.add(number)
                todo.append(number)
    while todo:
        for number, left in users.get(todo.pop(), ()):
            left[0] -= 1
            if not left[0] and number not in empty:
                empty.add(number)
                todo.append(number)
    return empty


def _components(edges: list[list[int]]) -> tuple[list[int], list[int]]:
    """(component of each rule, rules ordered so that what they lead to comes first); Tarjan's, without recursion."""
    count = len(edges)
    index, low, component = [-1] * count, [0] * count, [-1] * count
    order: list[int] = []
    stack: list[int] = []
    found = made = 0
    for start in range(count):
        if index[start] >= 0:
            continue
        work = [(start, 0)]
        while work:
            node, at = work.pop()
            if at == 0:
                index[node] = low[node] = found
                found += 1
                stack.append(node)
            descended = False
            while at < len(edges[node]):
                other = edges[node][at]
                at += 1
                if index[other] < 0:
                    work += [(node, at), (other, 0)]
                    descended = True
                    break
                if component[other] < 0:
                    low[node] = min(low[node], index[other])
            if descended:
                continue
            if low[node] == index[node]:
                while component[node] < 0:
                    member = stack.pop()
                    component[member] = made
                    order.append(member)
                made += 1
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
    return component, order


def _check_depth(first: list[list[int]], component: list[int], order: list[int]) -> None:
    depth = [0] * len(first)
    for node in order:
        outside = [depth[other] for other in first[node] if component[other] != component[node]]
        depth[node] = 1 + max(outside, default=0)
        if depth[node] > MAX_DEPTH:
            raise Bad(f"has a chain of more than {MAX_DEPTH} rules that begin with one another")


def _check_ways(rules: Rules, empty: set[int], component: list[int], order: list[int]) -> None:
    """Ways open at the beginning of each rule, and behind each of its elements."""
    ways: dict[int, int] = {}  # by component
    for node in order:
        total = 0
        for alternative in rules.alternatives(node):
            behind = 0
            for element in reversed(alternative):
                own = 1 if element < 0 else ways.get(component[element], 1)
                behind = own + (behind if element in empty else 0)
                if behind > MAX_WAYS:
                    raise Bad(f"leaves more than {MAX_WAYS} ways open in the rule '{rules.name(node)}'")
            total += behind
        ways[component[node]] = ways.get(component[node], 0) + total
        if ways[component[node]] > MAX_WAYS:
            raise Bad(f"leaves more than {MAX_WAYS} ways open in the rule '{rules.name(node)}'")
