"""all-MiniLM-L6-v2 with its real weights."""

import asyncio
import shutil

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from octollm.errors import EmbeddingError
from octollm.memory.embed.choose import choose_embedder
from octollm.memory.embed.minilm import MiniLm
from octollm.settings.sections import EmbeddingSettings

# The example that the model's authors publish, with the values that they print.
SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
COSINES = [[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]]


@pytest.fixture
async def minilm(minilm_files):
    made = MiniLm.load(minilm_files)
    yield made
    await made.close()


def section(**changes) -> EmbeddingSettings:
    return EmbeddingSettings(**({"provider": "auto", "path": "", "model": "", "url": "", "dimension": 384} | changes))


async def test_the_published_cosines(minilm):
    vectors = await minilm.embed(SENTENCES)
    assert np.round(vectors @ vectors.T, 4) == pytest.approx(np.array(COSINES), abs=1.01e-4)


def test_matrix_products_take_one_core(minilm):
    threads = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    assert set(threads) == {1}


async def test_a_text_has_the_same_vector_in_any_company(minilm):
    texts = [*SENTENCES, "", "a " * 300, "the tide rises " * 40, *(f"number {n}" for n in range(40))]
    together = await minilm.embed(texts)
    alone = np.concatenate([await minilm.embed([text]) for text in texts])
    assert together.shape == (len(texts), minilm.dimension)
    assert (together * alone).sum(1).min() > 1 - 1e-6
    assert (await minilm.embed([])).shape == (0, 384)


async def test_texts_are_cut_at_the_longest_and_counted_uncut(minilm):
    longest = "tide " * minilm.max_tokens
    cut, same, other = await minilm.embed(
        [longest + "stadium " * 50, longest, longest.removesuffix("tide ") + "stadium"]
    )
    assert float(cut @ same) > 1 - 1e-6
    assert float(other @ same) < 1 - 1e-6
    assert minilm.count_tokens([longest + "stadium " * 50, "", "It's"]) == [minilm.max_tokens + 50, 0, 3]


async def test_a_query_need_not_wait_for_all_of_a_long_ingestion(minilm):
    order = []

    async def run(name, texts):
        await minilm.embed(texts)
        order.append(name)

    ingestion = asyncio.create_task(run("ingestion", ["the tide rises and the tide falls " * 30] * 30))
    await asyncio.sleep(0)
    await run("query", ["when does the tide rise"])
    await ingestion
    assert order == ["query", "ingestion"]


async def test_half_a_surrogate_pair_is_refused(minilm):
    with pytest.raises(EmbeddingError, match="no Unicode"):
        await minilm.embed(["\ud800"])


def test_files_that_are_not_the_models_are_refused(minilm_files, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(minilm_files / name, tmp_path)
    with pytest.raises(EmbeddingError, match=r"model\.safetensors is missing; run `octollm models pull`"):
        choose_embedder(section(path=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(EmbeddingError, match="SHA-256 differs"):
        MiniLm.load(tmp_path)


async def test_auto_is_minilm_where_its_files_are(minilm_files, tmp_path):
    chosen = choose_embedder(section(path=str(minilm_files)))
    assert chosen.embedder is not None
    assert (chosen.embedder.name, chosen.reason) == ("minilm/all-MiniLM-L6-v2", None)
    await chosen.embedder.close()
    without = choose_embedder(section(path=str(tmp_path)))
    assert without.embedder is None
    assert "by keywords only" in (without.reason or "")
    with pytest.raises(EmbeddingError, match=r"embedding\.dimension is 768"):
        choose_embedder(section(path=str(minilm_files), dimension=768))
