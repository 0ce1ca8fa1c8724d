"""The coder: checks code and applies patches without a model, and writes code with one.

It never runs code.

Inputs (`files`: {name: text}, at most 64; `language`: python):
- `{"mode": "check", "files", "language"}` gives `{"ok", "errors", "warnings", "findings", "checked", "skipped",
  "mode"}`; `findings`: [{"file", "line", "rule", "severity", "message"}], `ok`: no errors. Files in other
  languages are `skipped`.
- `{"mode": "apply", "files", "patch"}` gives `{"files", "changed", "removed", "mode"}`, with all files
  after the patch. A patch that does not apply exactly fails the step with `patch_refused`.
- `{"mode": "generate", "goal", "language", "files"?, "tests"?, "previous"?, "feedback"?}` gives `{"files",
  "explanation", "mode": "model", "provider", "model", "tokens"}`; without a model the step fails with `needs_model`.
"""

from dataclasses import asdict
from typing import Any

from octollm.arms.base import ArmContext, invalid, require_fields
from octollm.arms.prompting import as_data, ask_model, prompt
from octollm.code.patch import apply
from octollm.code.python import Finding, check_source
from octollm.contracts import StepRequested
from octollm.errors import PatchError, PermanentError
from octollm.ports import Question

_MAX_FILES = 64
_MAX_NAME = 512
_MAX_TEXT = 500_000
_MAX_FINDINGS = 200
_ENDINGS = (".py", ".pyi")
_RESERVED = frozenset({"main.py", "main.sh", "tmp"})
"""Names of the executor's program and of its folder for temporary files."""
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
        """Return the output described in the module. Raises PermanentError for invalid input."""
        match step.input.get("mode"):
            case "check":
                require_fields(step.input, {"mode", "files", "language"}, set())
                _language(step.input)
                return await ctx.isolated(_check, _files(step.input, "files"))
            case "apply":
                require_fields(step.input, {"mode", "files", "patch"}, set())
                return await ctx.isolated(_apply, _files(step.input, "files"), _text(step.input, "patch"))
            case "generate":
                require_fields(step.input, {"mode", "goal", "language"}, {"files", "tests", "previous", "feedback"})
                _language(step.input)
                return await _generate(step, ctx)
            case _:
                raise invalid("input.mode must be check, apply or generate")


def _check(files: dict[str, str]) -> dict[str, Any]:
    checked = sorted(name for name in files if name.endswith(_ENDINGS))
    found = [one for name in checked for one in check_source(name, files[name])]
    errors = sum(one.severity == "error" for one in found)
    return {
        "ok": errors == 0,
        "errors": errors,
        "warnings": len(found) - errors,
        "findings": [asdict(one) for one in _errors_first(found)[:_MAX_FINDINGS]],
        "checked": checked,
        "skipped": sorted(set(files) - set(checked)),
        "mode": "deterministic",
    }


def _errors_first(found: list[Finding]) -> list[Finding]:
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

    async def find_faults(answer: dict[str, Any]) -> list[str]:
        return await ctx.isolated(_faults, answer)

    accepted = await ask_model(ctx, step, question, find_faults, "writing code")
    files = {one["name"]: one["text"] for one in accepted.value["files"]}
    ctx.log.info("wrote code", files=len(files))
    return {"files": files, "explanation": accepted.value["explanation"], **accepted.origin}


def _faults(answer: dict[str, Any]) -> list[str]:
    """Return why an answer cannot be run at all. Whether it is correct is decided by its tests."""
    names = [one["name"] for one in answer["files"]]
    files = {one["name"]: one["text"] for one in answer["files"]}
    if not names:
        return ["it contains no file"]
    if len(files) < len(names):
        return ["two files have the same name"]
    if reserved := sorted(files.keys() & _RESERVED):
        return [f"the name {reserved[0]} is reserved; use another one"]
    for name in names:
        if any(other.startswith(f"{name}/") for other in names):
            return [f"{name} is both a file and a folder"]
    try:
        _check_names(files, "files")
    except PermanentError as error:
        return [error.message]
    found = [one for name in sorted(files) if name.endswith(_ENDINGS) for one in check_source(name, files[name])]
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
        raise invalid(f"input.{field} must have at most {_MAX_TEXT} characters in total")
    _check_names(files, f"input.{field}")
    return files


def _check_names(files: dict[str, str], place: str) -> None:
    """Check file names by the executor's rules, because it will get these files."""
    if len(files) > _MAX_FILES:
        raise invalid(f"{place}: at most {_MAX_FILES} files")
    for name in files:
        parts = name.split("/")
        if not name or len(name.encode("utf-8", "replace")) > _MAX_NAME or "\0" in name:
            raise invalid(f"{place}: a file's name must have 1 to {_MAX_NAME} bytes and no NUL")
        if any(part in ("", ".", "..") for part in parts):
            raise invalid(f"{place}: a file's name must be a relative path without ., .. or empty parts")
