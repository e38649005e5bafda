"""Scores an answer by comparing texts: nothing of it is run, evaluated or parsed as an expression.

Whatever the answer, the work is bounded: only so many characters are looked at, numbers are read digit by digit, and no
power is worked out. Knows nothing of verl; standard library only."""

from __future__ import annotations

import re
from fractions import Fraction

#: For an answer of the right kind: without it a model that never hits exactly has nothing to climb.
PARTIAL = 0.1
#: Characters of an answer that are looked at, from its end: the final answer is there.
MAX_ANSWER = 16_384
#: Of a final answer, and of the truth that it is compared with; longer ones must be equal as they stand.
MAX_FINAL = 1_000
#: Of what is read as a number.
_MAX_NUMBER = 64
_MAX_POWER_OF_TEN = 40
#: Of tuples within tuples.
_MAX_DEPTH = 3

_ANSWER_IS = re.compile(r"answers?(?: is| are|)\s*:|answers? (?:is|are)\b|####", re.IGNORECASE)
_GONE = re.compile(
    r"\\(?:left|right|displaystyle|textstyle)(?![a-zA-Z])|\\[!,;:() \[\]]|\^\s*\\circ|\^\s*\{\s*\\circ\s*\}|\\degree|°"
    r"|\\%|%|\\\$|\$|~"
)
_UNIT = re.compile(r"(?<=[0-9}])\s*\\(?:text|textrm|mathrm|mbox)\{[^{}]*\}(?:\^\{?[0-9]\}?)?")
_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{([^{}]*)\}")
_FRAC_TWO = re.compile(r"\\frac([0-9a-z])([0-9a-z])")
_FRAC_FIRST = re.compile(r"\\frac([0-9a-z])\{")
_FRAC_SECOND = re.compile(r"\\frac\{([^{}]*)\}([0-9a-z])")
_SQRT = re.compile(r"\\sqrt([0-9a-z])")
_NAMED = re.compile(r"[a-z](?:_?[0-9])?(?:\([a-z]\))?=([^=]*)")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_CHOICE = re.compile(r"\(?([a-z])\)?")
_DECIMAL = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<whole>[0-9]+)?\\frac\{{(?P<minus>-?)(?P<top>{_DECIMAL})\}}\{{(?P<bottom>{_DECIMAL})\}}"
    rf"|(?P<a>{_DECIMAL})(?:/(?P<b>{_DECIMAL})|\*10\^\{{?(?P<power>[+-]?[0-9]{{1,2}})\}}?)?)"
)
_SAME = (
    (r"\dfrac", r"\frac"),
    (r"\tfrac", r"\frac"),
    (r"\cfrac", r"\frac"),
    (r"\cdot", "*"),
    (r"\times", "*"),
    ("\N{MULTIPLICATION SIGN}", "*"),
    ("·", "*"),
    (r"\leqslant", "<="),
    (r"\leq", "<="),
    (r"\le ", "<="),
    ("≤", "<="),
    (r"\geqslant", ">="),
    (r"\geq", ">="),
    (r"\ge ", ">="),
    ("≥", ">="),
    ("π", r"\pi"),
    ("∞", r"\infty"),
    ("\N{MINUS SIGN}", "-"),
    ("{,}", ","),
    (" or ", ","),
    (" and ", ","),
)


def plain_score(solution: str, truth: str) -> float:
    """1 for the ground truth, 0.1 for a number where it is one (or for text that holds it), else 0."""
    answer = solution.split("<|im_end|>", 1)[0].strip()
    truth = truth.strip()
    if not truth:
        return 0.0  # nothing to be right about
    if answer == truth:
        return 1.0
    return PARTIAL if (answer[:1].isdigit() if truth[:1].isdigit() else truth in answer) else 0.0


def maths_score(solution: str, truth: str) -> float:
    """1 for the same final answer, as maths is usually written, else 0."""
    if not truth.strip():
        return 0.0
    return float(is_same(final_answer(solution), final_answer(truth)))


def geometry_score(solution: str, truth: str) -> float:
    """verl's scale of geometry3k: 0.9 for the answer, which must be boxed, and 0.1 for the form."""
    end = solution[-MAX_ANSWER:]
    thought = end.find("</think>", max(end.find("<think>"), 0))
    is_in_form = solution.startswith("<think>") and thought >= 0 and _boxed(end[thought:]) is not None
    is_right = _boxed(end) is not None and maths_score(solution, truth) == 1.0
    return 0.9 * is_right + 0.1 * is_in_form


def code_score(solution: str, truth: str) -> float:
    """1 for the code of the ground truth, but for blank lines and blanks at the ends of lines; else 0."""
    code = _lines(_fenced(solution))
    return float(bool(code) and code == _lines(_fenced(truth)))


def final_answer(solution: str) -> str:
    r"""The last \boxed{...}, else what follows the last "answer is" or "####", else the last line."""
    end = solution.split("<|im_end|>", 1)[0][-MAX_ANSWER:]
    boxed = _boxed(end)
    if boxed is not None:
        return boxed
    said = None
    for said in _ANSWER_IS.finditer(end):  # noqa: B007  # the last one
        pass
    rest = end[said.end() :].strip() if said else ""
    lines = (rest or end.strip()).splitlines() or [""]
    return lines[0 if rest else -1].strip().rstrip(".")


def is_same(one: str, other: str) -> bool:
    if max(len(one), len(other)) > MAX_FINAL:
        return one.strip() == other.strip()
    return _is_same(_normal(one), _normal(other), _MAX_DEPTH)


def _is_same(one: str, other: str, depth: int) -> bool:
    if one == other:
        return bool(one)
    a, b = _number(one), _number(other)
    if a is not None or b is not None:
        return a == b
    first, second = _parts(one), _parts(other)
    if not depth or first[0] != second[0] or len(first[1]) != len(second[1]) or len(first[1]) < 2:
        return False
    return all(_is_same(x, y, depth - 1) for x, y in zip(first[1], second[1], strict=True))


def _normal(text: str) -> str:
    text = f"{text.strip()} "
    for before, after in _SAME:
        text = text.replace(before, after)
    text = _UNIT.sub("", text)
    text = _WORDS.sub(r"\1", text)
    text = "".join(_GONE.sub("", text).split()).lower()
    for pattern, fixed in (
        (_FRAC_TWO, r"\\frac{\1}{\2}"),
        (_FRAC_FIRST, r"\\frac{\1}{"),
        (_FRAC_SECOND, r"\\frac{\1}{\2}"),
        (_SQRT, r"\\sqrt{\1}"),
    ):
        text = pattern.sub(fixed, text)
    text = text.rstrip(".")
    if named := _NAMED.fullmatch(text):
        text = named[1]
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if choice := _CHOICE.fullmatch(text):
        text = choice[1]
    return text


def _number(text: str) -> Fraction | None:
    """Raises nothing: what is no number, or is too long for one, is None."""
    found = _NUMBER.fullmatch(text) if len(text) <= _MAX_NUMBER else None
    if not found:
        return None
    if found["top"]:
        bottom = Fraction(found["bottom"])
        if not bottom:
            return None
        value = Fraction(found["top"]) / bottom
        value = Fraction(found["whole"] or 0) + (-value if found["minus"] else value)
    else:
        value = Fraction(found["a"])
        if found["b"]:
            if not Fraction(found["b"]):
                return None
            value /= Fraction(found["b"])
        if found["power"]:
            power = int(found["power"])
            if abs(power) > _MAX_POWER_OF_TEN:
                return None
            value *= Fraction(10) ** power
    return -value if found["sign"] == "-" else value


def _parts(text: str) -> tuple[str, list[str]]:
    """The brackets around it, and what is between its commas that are in no other brackets."""
    around = text[:1] + text[-1:] if text[:1] in ("(", "[") and text[-1:] in (")", "]") else ""
    if text.startswith(r"\{") and text.endswith(r"\}"):
        around, text = "{}", text[2:-2]
    elif around:
        text = text[1:-1]
    parts, depth, begin = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(text[begin:i])
            begin = i + 1
    return around, [*parts, text[begin:]]


def _boxed(text: str) -> str | None:
    begin = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if begin < 0:
        return None
    begin += len(r"\boxed") if text.startswith(r"\boxed", begin) else len(r"\fbox")
    rest = text[begin:].lstrip()
    if not rest.startswith("{"):
        return rest.split("$", 1)[0].split("\n", 1)[0].strip() or None
    depth = 0
    for i, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if not depth:
            return rest[1:i].strip()
    return None


def _fenced(text: str) -> str:
    """What the last fence holds, without the language's name; all of it if there is none."""
    parts = text.rsplit("```", 2)
    return parts[1].partition("\n")[2] if len(parts) == 3 else text


def _lines(code: str) -> list[str]:
    return [line.rstrip() for line in code.splitlines() if line.strip()]
