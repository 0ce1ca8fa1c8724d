"""The strict applier against difflib, and what is found in Python by looking at it."""

import difflib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octollm.code.patch import apply
from octollm.code.python import check_source
from octollm.errors import PatchError

FILE = "one\ntwo\nthree\nfour\nfive\n"
FIX = """\
--- a/f.txt
+++ b/f.txt
@@ -2,3 +2,3 @@ some heading
 two
-three
+THREE
 four
"""


def kept(text):
    return [line for line in re.split(r"(?<=\n)", text) if line]


def diff(old, new, context=3):
    """What difflib makes, with the marks it leaves out for a last line without newline."""
    lines = difflib.unified_diff(kept(old), kept(new), "a/f.txt", "b/f.txt", n=context)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


# Lines that look like parts of a diff, carriage returns, and characters that str.splitlines would split at.
TEXTS = st.lists(
    st.sampled_from(["a", "b", "", "-x", "+x", " x", "--- x", "@@ -1 +1 @@", "\\ x", "c\r", "d\x0b\u2028"])
)
WHOLE = st.tuples(TEXTS, st.booleans()).map(lambda made: "\n".join(made[0]) + ("\n" if made[1] else ""))


@settings(max_examples=500)
@given(WHOLE, WHOLE, st.integers(0, 4))
def test_what_difflib_says_is_what_comes_out(old, new, context):
    patch = diff(old, new, context)
    if old == new:
        assert patch == ""
    else:
        assert apply({"f.txt": old, "other": "x"}, patch) == {"f.txt": new, "other": "x"}


@settings(max_examples=200)
@given(WHOLE, WHOLE, WHOLE)
def test_a_patch_for_another_file_never_gives_anything_but_its_result_or_an_error(old, new, other):
    patch = diff(old, new, 3)
    if old == new:
        return
    try:
        result = apply({"f.txt": other}, patch)["f.txt"]
    except PatchError:
        return
    # It fits by all its context: then taking it back gives what was there.
    assert apply({"f.txt": result}, diff(result, other))["f.txt"] == other
    for line in kept(diff(old, new))[2:]:
        if line.startswith("+") and not line.startswith("+++"):
            assert line[1:].rstrip("\n") in result


@given(st.text())
def test_no_text_breaks_the_reader(text):
    for patch in (text, FIX + text, FIX.replace("two", text)):
        try:
            apply({"f.txt": FILE}, patch)
        except PatchError as error:
            assert str(error)


def test_gits_own_lines_and_comments_are_passed_over():
    head = "From someone\n\ndiff --git a/f.txt b/f.txt\nindex 123..456 100644\n"
    for tail in ("", "-- \n2.43.0\n", "\n\nA remark.\n"):
        assert apply({"f.txt": FILE}, head + FIX + tail) == {"f.txt": FILE.replace("three", "THREE")}


def test_files_are_created_and_removed():
    new = "--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1,2 @@\n+a\n+b\n"
    assert apply({}, new) == {"new.txt": "a\nb\n"}
    gone = "--- a/new.txt\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n"
    assert apply({"new.txt": "a\nb\n"}, gone) == {}
    assert apply({"old.txt": "x\n"}, "--- old.txt\t2026\n+++ old.txt\t2026\n@@ -1 +1 @@\n-x\n+y\n") == {
        "old.txt": "y\n"
    }


@pytest.mark.parametrize(
    ("files", "patch", "part"),
    [
        ({}, FIX, "f.txt: there is no such file; there are none"),
        ({"f.txt": FILE}, "", "changes nothing"),
        ({"f.txt": FILE}, "just words", "changes nothing"),
        ({"f.txt": FILE.replace("four", "FOUR")}, FIX, r"hunk 1 of 1: line 4 is 'FOUR\n', it expects 'four\n'"),
        ({"f.txt": "zero\n" + FILE}, FIX, "begins on line 3: correct its head"),
        ({"f.txt": "one\ntwo\n"}, FIX, "it expects more lines, the file has 2"),
        ({"f.txt": FILE}, FIX.replace("-2,3", "-12,3"), "the file has 5 (what it expects begins on line 2: correct"),
        ({"f.txt": FILE}, FIX.replace("-2,3", "-2,4"), "promises 4 old and 3 new lines"),
        (
            {"f.txt": FILE},
            FIX.replace("-2,3 +2,3", "-2,2 +2,2"),
            "line 7 of the patch: the hunk continues after the 2 old",
        ),
        ({"f.txt": FILE}, FIX + "+more\n", "line 8 of the patch: the hunk continues"),
        ({"f.txt": FILE}, FIX + "-less\n", "line 8 of the patch: the hunk continues"),
        ({"f.txt": FILE}, FIX + "--- x\n", "line 8 of the patch: the hunk continues"),
        (
            {"f.txt": FILE},
            FIX + FIX.replace("@@ -2,3 +2,3 @@", "@@ -2,3 +two,3 @@"),
            "line 10 of the patch: not a hunk's",
        ),
        ({"f.txt": FILE}, FIX.replace("-2,3", "-\u0662,3"), "not a hunk's head"),
        ({"f.txt": FILE}, FIX.replace("@@ -2,3 +2,3 @@", "@@ here @@"), "not a hunk's head"),
        ({"f.txt": FILE}, FIX.replace("+++ b/f.txt\n", ""), "must follow the line ---"),
        ({"f.txt": FILE}, FIX.replace("+++ b/f.txt", "+++ b/g.txt"), "one file on both sides"),
        ({"f.txt": FILE}, FIX.replace("a/f.txt", '"a/f.txt"'), "quotes"),
        ({"f.txt": FILE}, FIX.partition("@@")[0], "must follow the line +++"),
        ({"f.txt": FILE}, FIX.partition("+++ b/f.txt\n")[2], "a hunk before any file"),
        ({"f.txt": FILE}, FIX + FIX.partition("+++ b/f.txt\n")[2], "begins before the hunk above it ends"),
        ({"f.txt": FILE}, "rename from f.txt\n" + FIX, "renames a file"),
        ({"f.txt": FILE}, "GIT binary patch\n", "is binary"),
        ({"f.txt": FILE}, "--- /dev/null\n+++ b/f.txt\n@@ -0,0 +1 @@\n+a\n", "it is there"),
        ({"f.txt": FILE}, "--- a/f.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n", "not all of its lines"),
        ({"f.txt": FILE}, "--- a/f.txt\n+++ b/f.txt\n@@ -9,0 +10 @@\n+x\n", "the file has 5"),
        ({"f.txt": "x"}, "--- a/f.txt\n+++ b/f.txt\n@@ -1 +1 @@\n-x\n+y\n", r"'x', it expects 'x\n'"),
        ({"f.txt": "x"}, "--- a/f.txt\n+++ b/f.txt\n@@ -1,0 +2 @@\n+y\n", "without newline"),
    ],
)
def test_what_does_not_fit_exactly_is_refused_with_its_place(files, patch, part):
    with pytest.raises(PatchError) as caught:
        apply(files, patch)
    assert part in str(caught.value)


def test_every_hunk_that_does_not_fit_is_named():
    two = FIX + "@@ -5 +5 @@\n-fife\n+FIVE\n" + FIX.replace("f.txt", "g.txt")
    with pytest.raises(PatchError) as caught:
        apply({"f.txt": FILE.replace("two", "2")}, two)
    assert "hunk 1 of 2" in str(caught.value)
    assert "hunk 2 of 2" in str(caught.value)
    assert "g.txt: there is no such file" in str(caught.value)


def rules(text, file="m.py"):
    return [(one.line, one.rule) for one in check_source(file, text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(:\n", [(1, "syntax")]),
        ("x = 1\nreturn x\n", [(2, "syntax")]),
        ("x = '\0'\n", [(1, "syntax")]),
        ("(" * 500, [(1, "syntax")]),
        ("-" * 100_000 + "1", [(1, "syntax")]),
        ("x = y\n", [(1, "undefined_name")]),
        ("def f():\n    return lenght([])\n", [(2, "undefined_name")]),
        ("class A:\n    def f(self):\n        return slf\n", [(3, "undefined_name")]),
        ("x: int\nprint(x)\n", [(2, "undefined_name")]),
        ("__all__ = ['gone']\n", [(1, "undefined_export")]),
        ("def f():\n    found = 1\n", [(2, "unused_variable")]),
        ("if (1, 2):\n    pass\n", [(1, "if_tuple")]),
        ("x = {'a': 1, 'a': 2}\n", [(1, "multi_value_repeated_key_literal")] * 2),
        ("print('%d and %d' % (1,))\n", [(1, "percent_format_positional_count_mismatch")]),
        ("x = " + "+".join(["1"] * 900), [(1, "nested_too_deeply")]),
        ("import os\nimport sys\nprint(sys)\n", [(1, "unused_import")]),
        ("from a import b as c, d\nprint(d)\n", [(1, "unused_import")]),
        ("try:\n    pass\nexcept:\n    pass\n", [(3, "bare_except")]),
        ("def f(a=[], *, b={}, c=set()):\n    pass\n", [(1, "mutable_default")] * 3),
        ("def f():\n    return 1\n    print(2)\n", [(3, "unreachable")]),
        ("for x in []:\n    continue\n    print(x)\n", [(3, "unreachable")]),
        ("assert (1 == 2, 'no')\n", [(1, "assert_tuple")]),
    ],
)
def test_what_is_wrong_is_found_where_it_is(text, found):
    assert rules(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import os\n\ndef f() -> 'os.PathLike[str]':\n    ...\n",
        "import os\n__all__ = ['os']\n",
        "import os as os\nfrom a import b as b\nfrom . import c as c\nfrom ..d.e import f as f\n",
        "from __future__ import annotations\n",
        "try:\n    import json\nexcept ImportError:\n    json = None\n",
        "try:\n    pass\nexcept:\n    print(1)\n    raise\n",
        "def f(a=None, b=(), c=1):\n    return a or b or c\n",
        "def f():\n    global x\n    x = 1\n\ndef g():\n    return x\n",
        "x: int = 1\nprint(x)\n",
        "def f():\n    return g()\n\ndef g():\n    return 1\n\nf()\ndel g\n",
        "import enum\n\n@enum.global_enum\nclass A(enum.Enum):\n    B = 1\n\nprint(B)\n",
        "from m import *\nprint(y)\n",
        "try:\n    unicode\nexcept NameError:\n    unicode = str\n",
        "class A:\n    def top(self, which):\n        return which\n",
        "class A:\n    def f(self):\n        return __class__\n",
        "print(__name__, __file__)\n",
        "[y for y in range(3)]\n",
        "match [1]:\n    case [first, *rest]:\n        print(first, rest)\n",
        "try:\n    pass\nexcept ValueError as error:\n    print(error)\n",
        "print((n := 3), n)\n",
        "import a.b\nprint(a.b.c)\n",
        "def f(*args, **kwargs):\n    return args, kwargs\n",
        "lambda z: z\n",
        "with open('x') as file, open('y') as (a, b):\n    print(file, a, b)\n",
        "exec('q = 1')\nprint(q)\n",
    ],
)
def test_what_is_right_is_left_alone(text):
    assert rules(text) == []


def test_an_init_file_may_import_for_others():
    assert rules("from a import b\n", "pkg/__init__.py") == []


def test_our_own_code_has_no_findings():
    """Some ten thousand lines that a linter has gone over: whatever is found there is a false alarm."""
    root = Path(__file__).resolve().parents[2]
    files = [path for folder in ("workers", "tests", "bench") for path in (root / folder).rglob("*.py")]
    files = [path for path in files if "generated" not in path.parts]
    assert len(files) > 100
    found = [one for path in files for one in check_source(str(path), path.read_text(encoding="utf-8"))]
    assert found == []


def test_the_standard_library_has_no_undefined_names():
    """The other rules are about habits that it has; a name that is nowhere would be a lie about working code."""
    folder = Path(os.__file__).parent
    wrong = []
    for path in sorted(folder.glob("*.py")):
        found = check_source(path.name, path.read_text(encoding="utf-8"))
        wrong += [one for one in found if one.rule in ("syntax", "undefined_name")]
    assert wrong == []
