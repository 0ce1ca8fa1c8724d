"""Which embedder and which vector store the settings come to, as far as nothing needs to be there."""

import sys

import pytest

from octollm.errors import EmbeddingError, VectorStoreError
from octollm.memory.embed.choose import choose_embedder
from octollm.memory.vectors.choose import choose_store, chosen
from octollm.memory.vectors.edge import EdgeStore
from octollm.memory.vectors.local import LocalStore
from octollm.memory.vectors.server import ServerStore
from octollm.settings.sections import EmbeddingSettings, QdrantSettings


def embedding(**changes) -> EmbeddingSettings:
    return EmbeddingSettings(**({"provider": "auto", "path": "", "model": "", "url": "", "dimension": 384} | changes))


def qdrant(**changes) -> QdrantSettings:
    return QdrantSettings(**({"url": "", "api_key": "", "path": "", "store": "auto"} | changes))


def test_none_says_why():
    assert choose_embedder(embedding(provider="none")).reason == (
        "search is by keywords only: embedding.provider is none"
    )


def test_a_provider_that_cannot_be_had_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(EmbeddingError, match=r"embedding\.model is empty"):
        choose_embedder(embedding(provider="openai"))
    with pytest.raises(EmbeddingError, match="set OPENAI_API_KEY"):
        choose_embedder(embedding(provider="openai", model="text-embedding-3-small"))
    with pytest.raises(EmbeddingError, match=r"not installed; install octollm\[fastembed\]"):
        choose_embedder(embedding(provider="fastembed", model="BAAI/bge-small-en-v1.5"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "none"),
        ({"path": "vectors"}, "edge"),
        ({"path": "vectors", "url": "http://127.0.0.1:6333"}, "server"),
        ({"store": "local", "url": "http://127.0.0.1:6333"}, "local"),
        ({"store": "none", "path": "vectors"}, "none"),
    ],
)
def test_auto_takes_the_server_before_the_folder(changes, expected):
    kinds = {"none": type(None), "edge": EdgeStore, "server": ServerStore, "local": LocalStore}
    assert chosen(qdrant(**changes)) == expected
    assert type(choose_store(qdrant(**changes))) is kinds[expected]


@pytest.mark.parametrize(("store", "variable"), [("server", "OCTOLLM_QDRANT_URL"), ("edge", "OCTOLLM_QDRANT_PATH")])
def test_a_store_without_its_place_is_refused(store, variable):
    with pytest.raises(VectorStoreError, match=variable):
        choose_store(qdrant(store=store))


@pytest.mark.parametrize("package", ["safetensors", "threadpoolctl", "tokenizers"])
def test_a_model_without_the_packages_of_its_extra_names_the_extra(package, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, package, None)
    for provider in ("auto", "minilm"):
        with pytest.raises(EmbeddingError, match=rf"{package} is not installed; install octollm\[minilm\]"):
            choose_embedder(embedding(provider=provider, path=str(tmp_path)))
