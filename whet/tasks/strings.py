"""The 25 string functions of RL-Compositionality (arXiv 2509.25123), each with the short name that expressions use.

Own code after the paper's definitions. Two functions of the paper search, and their net effect is written
here: `add_digit` (its search always ends on an appended 1) and `palindrome` (one mirror is always enough).
Three functions held out by the paper equal a trained one on every input; `TWINS` names them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from math import gcd

# --- functions of the string alone -------------------------------------------------------------------------


def shuffle(s: str) -> str:
    """Every k-th character, round and round; k is the first of 3, 5, 7, … that meets every position.

    >>> shuffle("abcdefghi")
    'afbgchdie'
    """
    stride = 3
    while s and gcd(stride, len(s)) != 1:
        stride += 2
    return "".join(s[i * stride % len(s)] for i in range(len(s)))


def remove_vowels(s: str) -> str:
    """Without a, e, i, o, u.

    >>> remove_vowels("banana")
    'bnn'
    """
    return "".join(c for c in s if c.lower() not in "aeiou")


def sort_characters(s: str) -> str:
    """The characters by code point.

    >>> sort_characters("banana")
    'aaabnn'
    """
    return "".join(sorted(s))


def reverse_words(s: str) -> str:
    """The words in reverse order, one space between them.

    >>> reverse_words("ab cde")
    'cde ab'
    """
    return " ".join(reversed(s.split()))


def mirror(s: str) -> str:
    """The string and then its reverse.

    >>> mirror("banana")
    'bananaananab'
    """
    return s + s[::-1]


def alternate_case(s: str) -> str:
    """Lower case at even positions, upper case at odd ones.

    >>> alternate_case("banana")
    'bAnAnA'
    """
    return "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(s))


def number_vowels(s: str) -> str:
    """The vowels a, e, i, o, u become 1, 2, 3, 4, 5.

    >>> number_vowels("banana")
    'b1n1n1'
    """
    return s.translate(str.maketrans("aeiouAEIOU", "1234512345"))


def double_each(s: str) -> str:
    """Every character twice.

    >>> double_each("banana")
    'bbaannaannaa'
    """
    return "".join(c + c for c in s)


def bracket_each(s: str) -> str:
    """Every character in brackets; the paper has guillemets, and the tokenizer has ASCII only.

    >>> bracket_each("ban")
    '<b><a><n>'
    """
    return "".join(f"<{c}>" for c in s)


def squeeze(s: str) -> str:
    """Without the characters that equal the one before them.

    >>> squeeze("aabbba")
    'aba'
    """
    return "".join(c for i, c in enumerate(s) if i == 0 or c != s[i - 1])


def reverse(s: str) -> str:
    """The characters in reverse order.

    >>> reverse("banana")
    'ananab'
    """
    return s[::-1]


def letters_only(s: str) -> str:
    """Without everything that is no letter.

    >>> letters_only("b4n-a")
    'bna'
    """
    return "".join(filter(str.isalpha, s))


def even_length(s: str) -> str:
    """Without the last character if the length is odd.

    >>> even_length("abc")
    'ab'
    """
    return s[: len(s) // 2 * 2]


# --- functions of the string and a number ------------------------------------------------------------------


def repeat(s: str, times: int) -> str:
    """The string several times.

    >>> repeat("banana", 2)
    'bananabanana'
    """
    return s * times


def concatenate(s: str, times: int) -> str:
    """The string appended to nothing several times: the same as `repeat`.

    >>> concatenate("banana", 3)
    'bananabananabanana'
    """
    return "".join(s for _ in range(times))


def rotate(s: str, by: int) -> str:
    """The first `by` characters move to the end.

    >>> rotate("banana", 2)
    'nanaba'
    """
    by = by % len(s) if s else 0
    return s[by:] + s[:by]


def rotate_stepwise(s: str, by: int) -> str:
    """The first character moves to the end, `by` times: the same as `rotate`.

    >>> rotate_stepwise("banana", 2)
    'nanaba'
    """
    for _ in range(by):
        s = s[1:] + s[:1]
    return s


def shift(s: str, by: int) -> str:
    """Every letter becomes the one `by` places later in the alphabet, after z comes a.

    >>> shift("banana", 3)
    'edqdqd'
    """
    return "".join(_shifted(c, by) for c in s)


def _shifted(c: str, by: int) -> str:
    if not (c.isascii() and c.isalpha()):
        return c
    first = ord("a" if c.islower() else "A")
    return chr(first + (ord(c) - first + by) % 26)


def add_digit(s: str, depth: int) -> str:
    """A 1 is appended unless there is a digit; the paper's search of any depth ≥ 1 comes to this.

    >>> add_digit("banana", 2), add_digit("b2", 2)
    ('banana1', 'b2')
    """
    return s if depth < 1 or any(c.isdigit() for c in s) else s + "1"


def palindrome(s: str, depth: int) -> str:
    """Mirrored unless it is a palindrome; `depth` bounds the number of mirrors, and one is enough.

    >>> palindrome("banana", 2), palindrome("aba", 2)
    ('bananaananab', 'aba')
    """
    return s if depth < 1 or s == s[::-1] else mirror(s)


# --- functions of the string and another string ------------------------------------------------------------


def add_prefix(s: str, prefix: str) -> str:
    """The prefix and then the string.

    >>> add_prefix("banana", "xy")
    'xybanana'
    """
    return prefix + s


def add_suffix(s: str, suffix: str) -> str:
    """The string and then the suffix.

    >>> add_suffix("banana", "zz")
    'bananazz'
    """
    return s + suffix


def separate(s: str, mark: str) -> str:
    """The mark between neighbouring characters.

    >>> separate("banana", "-")
    'b-a-n-a-n-a'
    """
    return mark.join(s)


def interlace(s: str, other: str) -> str:
    """Characters of the two strings in turn, then what is left of the longer one.

    >>> interlace("banana", "QRS")
    'bQaRnSana'
    """
    return "".join(a + b for a, b in zip_longest(s, other, fillvalue=""))


def interlace_recursively(s: str, other: str) -> str:
    """The same as `interlace`, first characters first.

    >>> interlace_recursively("banana", "QRS")
    'bQaRnSana'
    """
    if not s or not other:
        return s + other
    return s[0] + other[0] + interlace_recursively(s[1:], other[1:])


# --- the table ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """A function under its short name. `trained`: composed in training; `argument`: what it takes besides.

    `argument` is "" (nothing), or one of the kinds that `compose` knows how to draw.
    """

    name: str
    function: Callable[..., str]
    trained: bool
    argument: str = ""

    def __call__(self, s: str, *argument: str) -> str:
        """The value, from the argument as it is written in an expression."""
        return self.function(s, *(int(a) if a.isdigit() else a for a in argument))


# In the paper's order, 0 to 24. True: the paper's 13 functions that training composes.
FUNCTIONS: dict[str, Named] = {
    row[0]: Named(*row)
    for row in (
        ("mix", shuffle, False),
        ("rep", repeat, True, "times"),
        ("nov", remove_vowels, False),
        ("srt", sort_characters, True),
        ("wds", reverse_words, True),
        ("pre", add_prefix, True, "string"),
        ("suf", add_suffix, False, "string"),
        ("lac", interlace, False, "string"),
        ("rol", rotate, False, "places"),
        ("mir", mirror, True),
        ("alt", alternate_case, False),
        ("inc", shift, True, "shift"),
        ("num", number_vowels, False),
        ("sep", separate, True, "mark"),
        ("dup", double_each, False),
        ("box", bracket_each, True),
        ("sqz", squeeze, False),
        ("rev", reverse, True),
        ("cat", concatenate, False, "times"),
        ("rot", rotate_stepwise, True, "places"),
        ("zip", interlace_recursively, True, "string"),
        ("let", letters_only, False),
        ("evn", even_length, True),
        ("dig", add_digit, True, "depth"),
        ("pal", palindrome, False, "depth"),
    )
}

# Held-out function → the trained function that it equals on every input.
TWINS = {"cat": "rep", "rol": "rot", "lac": "zip"}
TRAINED = tuple(name for name, entry in FUNCTIONS.items() if entry.trained)
HELD_OUT = tuple(name for name, entry in FUNCTIONS.items() if not entry.trained)
STRICTLY_HELD_OUT = tuple(name for name in HELD_OUT if name not in TWINS)
