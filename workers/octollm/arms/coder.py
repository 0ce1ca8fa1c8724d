"""The coder: looks through code and applies patches without a model, writes code with one. Never runs anything.

Inputs (`files`: {name: text}, at most 64; `language`: python):
- `{"mode": "check", "files", "language"}` gives `{"ok", "errors", "warnings", "findings", "checked", "skipped",
  "mode"}`; `findings`: [{"file", "line", "rule", "severity", "message"}], `ok`: without an error. Files that are not of
  the language are `skipped`.
- `{"mode": "apply", "files", "patch"}` gives `{"files", "changed", "removed", "mode"}`, with all files as they are
  then. A patch that does not fit to the letter fails the step as `patch_refused`.
- `{"mode": "generate", "goal", "language", "files"?, "tests"?, "previous"?, "feedback"?}` gives `{"files",
  "explanation", "mode": "model", "provider", "model", "tokens"}`; without a model the step fails as `needs_model`.
"""

from dataclasses import asdict
from typing import Any

from octollm.arms.base import ArmContext, closed, invalid
from octollm.arms.prompting import as_data, ask, prompt
from octollm.code.patch import apply
from octollm.code.python import Finding, look_through
from octollm.contracts import StepRequested
from octollm.errors import PatchError, PermanentError
from octollm.ports import Question

_MAX_FILES = 64
_MAX_NAME = 512
_MAX_TEXT = 500_000
_MAX_FINDINGS = 200
_ENDINGS = (".py", ".pyi")
_TAKEN = frozenset({"main.py", "main.sh", "tmp"})
"""What the executor calls the program it runs, and its folder for temporary files."""
_ANSWER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["files", "explanation"],
    "properties": {
        "files": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "text"],
                "properties": {"name": {"type": "string"}, "text": {"type": "string"}},
            },
        },
        "explanation": {"type": "string"},
    },
}


class Coder:
    """Arm `coder`."""

    uses_model = True

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """See the module; raises PermanentError on any other input."""
        match step.input.get("mode"):
            case "check":
                closed(step.input, {"mode", "files", "language"}, set())
                _language(step.input)
                return _check(_files(step.input, "files"))
            case "apply":
                closed(step.input, {"mode", "files", "patch"}, set())
                return _apply(_files(step.input, "files"), _text(step.input, "patch"))
            case "generate":
                closed(step.input, {"mode", "goal", "language"}, {"files", "tests", "previous", "feedback"})
                _language(step.input)
                return await _generate(step, ctx)
            case _:
                raise invalid("input.mode must be check, apply or generate")


def _check(files: dict[str, str]) -> dict[str, Any]:
    checked = sorted(name for name in files if name.endswith(_ENDINGS))
    found = [one for name in checked for one in look_through(name, files[name])]
    errors = sum(one.severity == "error" for one in found)
    return {
        "ok": errors == 0,
        "errors": errors,
        "warnings": len(found) - errors,
        "findings": [asdict(one) for one in _worst_first(found)[:_MAX_FINDINGS]],
        "checked": checked,
        "skipped": sorted(set(files) - set(checked)),
        "mode": "deterministic",
    }


def _worst_first(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda one: one.severity != "error")


def _apply(files: dict[str, str], patch: str) -> dict[str, Any]:
    try:
        after = apply(files, patch)
    except PatchError as error:
        raise PermanentError("patch_refused", error.message[:2000]) from error
    _check_names(after, "the patched files")
    changed = sorted(name for name, text in after.items() if files.get(name) != text)
    removed = sorted(set(files) - set(after))
    return {"files": after, "changed": changed, "removed": removed, "mode": "deterministic"}


async def _generate(step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
    given = step.input
    parts = [as_data("goal", _text(given, "goal"))]
    if "tests" in given:
        parts.append(as_data("tests", _text(given, "tests")))
    parts += [as_data(name, _files(given, name)) for name in ("files", "previous") if name in given]
    if "feedback" in given:
        parts.append(as_data("feedback", given["feedback"]))
    question = Question("code", prompt("code"), "\n\n".join(parts), _ANSWER)
    usable = await ask(ctx, step, question, _faults, "writing code")
    files = {one["name"]: one["text"] for one in usable.value["files"]}
    ctx.log.info("wrote code", files=len(files))
    return {"files": files, "explanation": usable.value["explanation"], **usable.told}


def _faults(answer: dict[str, Any]) -> list[str]:
    """What keeps an answer from being run at all; whether it is right is for the tests to say."""
    names = [one["name"] for one in answer["files"]]
    files = {one["name"]: one["text"] for one in answer["files"]}
    if not names:
        return ["there is no file in it"]
    if len(files) < len(names):
        return ["two files have the same name"]
    if taken := sorted(files.keys() & _TAKEN):
        return [f"the name {taken[0]} is taken; use another"]
    for name in names:
        if any(other.startswith(f"{name}/") for other in names):
            return [f"{name} is both a file and a folder"]
    try:
        _check_names(files, "files")
    except PermanentError as error:
        return [error.message]
    found = [one for name in sorted(files) if name.endswith(_ENDINGS) for one in look_through(name, files[name])]
    return [f"{one.file}, line {one.line}: {one.message}" for one in found if one.severity == "error"][:10]


def _language(given: dict[str, Any]) -> None:
    if given["language"] != "python":
        raise invalid("input.language must be python")


def _text(given: dict[str, Any], field: str) -> str:
    text = given[field]
    if not isinstance(text, str) or not text.strip() or len(text) > _MAX_TEXT:
        raise invalid(f"input.{field} must be text of 1 to {_MAX_TEXT} characters")
    return text


def _files(given: dict[str, Any], field: str) -> dict[str, str]:
    files = given[field]
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise invalid(f"input.{field} must be an object of file names and texts")
    if sum(map(len, files.values())) > _MAX_TEXT:
        raise invalid(f"input.{field} must hold at most {_MAX_TEXT} characters together")
    _check_names(files, f"input.{field}")
    return files


def _check_names(files: dict[str, str], place: str) -> None:
    """By the executor's rules: it is where these files go next."""
    if len(files) > _MAX_FILES:
        raise invalid(f"{place}: at most {_MAX_FILES} files")
    for name in files:
        parts = name.split("/")
        if not name or len(name.encode("utf-8", "replace")) > _MAX_NAME or "\0" in name:
            raise invalid(f"{place}: a file's name must have 1 to {_MAX_NAME} bytes and no NUL")
        if any(part in ("", ".", "..") for part in parts):
            raise invalid(f"{place}: a file's name must be a relative path without ., .. or empty parts")
