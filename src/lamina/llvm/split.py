"""Cut the text of a module into parts that are compiled apart, on several cores.

Generating machine code is most of the time of a cold start, and a step consists of many kernels
that know nothing of each other. The cut depends on the text alone, so that the same program gives
the same bytes on any machine.
"""

from __future__ import annotations

import re

# A part is worth its overhead (about a millisecond) from here on.
PART_LINES = 1200
MOST_PARTS = 16

_NAME = re.compile(r"@([-\w.$]+)")
_GLOBAL = re.compile(r"^@[-\w.$]+ = (?!(?:internal|private)\b[^\n]*\bconstant\b)", re.MULTILINE)


def split(text: str) -> list[str]:
    """Texts of modules that are together what the module `text` is.

    Functions that others outside may see, and that call no internal function, are dealt out; all
    the rest stays together in the first part. Constants are repeated. A module with variables, with
    names in quotes, or with little text, is left whole.
    """
    if text.count("\n") < 2 * PART_LINES or _GLOBAL.search(text) or '@"' in text:
        return [text]
    head, functions = _functions(text)
    inner = {name for name, body in functions.items() if _is_internal(body)}
    used = {name: set(_NAME.findall(body)) & functions.keys() for name, body in functions.items()}
    free = [name for name in functions if name not in inner and not used[name] & inner]
    rest = [name for name in functions if name not in set(free)]
    lines = {name: body.count("\n") for name, body in functions.items()}
    count = min(MOST_PARTS, max(1, sum(lines[name] for name in free) // PART_LINES))
    parts: list[list[str]] = [[] for _ in range(count)]
    parts[0] += rest
    sizes = [0] * count
    sizes[0] = sum(lines[name] for name in rest)
    for name in sorted(free, key=lambda name: -lines[name]):
        smallest = sizes.index(min(sizes))
        parts[smallest].append(name)
        sizes[smallest] += lines[name]
    texts = []
    for part in parts:
        elsewhere = sorted(set().union(*(used[name] for name in part)) - set(part))
        declarations = [_declaration(functions[name]) for name in elsewhere]
        texts.append("\n".join([head, *declarations, *(functions[name] for name in part)]))
    return texts


def _functions(text: str) -> tuple[str, dict[str, str]]:
    """(everything else, name -> definition); a definition ends with a line that is `}`."""
    outside, functions = [], {}
    text = f"\n{text}\n"
    at = 0
    while (start := text.find("\ndefine ", at)) >= 0:
        end = text.index("\n}\n", start) + 2
        outside.append(text[at:start])
        begin = text.index("@", start) + 1
        functions[text[begin : text.index("(", begin)]] = text[start + 1 : end]
        at = end
    outside.append(text[at:])
    return "".join(outside), functions


def _is_internal(body: str) -> bool:
    return body.startswith(("define internal ", "define private "))


def _declaration(body: str) -> str:
    """`declare` with the signature of a definition, without what stands behind its parameters."""
    start = body.index("(", body.index("@"))
    depth = 0
    for end in range(start, len(body)):
        depth += {"(": 1, ")": -1}.get(body[end], 0)
        if depth == 0:
            break
    return "declare " + body[len("define ") : end + 1]
