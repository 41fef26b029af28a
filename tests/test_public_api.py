"""The public names, held as a list: a change here is a change of the package's promise."""

from __future__ import annotations

import subprocess
import sys

import lpm_core
import lpm_integrations.bench.metrics
import lpm_integrations.chroma
import lpm_integrations.langchain
import lpm_integrations.llama_index
import lpm_integrations.mem0


def test_public_names() -> None:
    assert set(lpm_core.__all__) == {
        "LPM", "Answer", "AnswerStream", "ConsolidationRecipe", "ConsolidationReport", "DatasetError", "EngineClosedError", "Evidence", "Explanation",
        "ForgetReceipt", "InvalidInputError", "LPMConfig", "LPMError", "LPMSettings", "MemoryStore", "MemoryWeightsError", "MissingDependencyError",
        "ModelError", "ModelNotFoundError", "Page", "Quarantined", "Recall", "Stats", "StoreCorruptError", "StoreError", "StoreKeyError", "StoreUnavailableError", "StoreVersionError", "ToolCall",
        "Turn", "UnknownUserError", "Usage", "UserMemory",
    }  # fmt: skip
    assert all(getattr(lpm_core, name) is not None for name in lpm_core.__all__)
    assert set(lpm_integrations.langchain.__all__) == {
        "ChatLPM", "LPMChatMessageHistory", "LPMMemory", "LPMMiddleware", "LPMRetriever", "RAGMemory", "RAGMiddleware",
    }  # fmt: skip
    assert all(getattr(lpm_integrations.langchain, name) is not None for name in lpm_integrations.langchain.__all__)
    assert set(lpm_integrations.llama_index.__all__) == {"EveryTurnMemory", "LPMLLM", "LPMMemory", "LPMMemoryBlock", "RAGMemory"}
    assert set(lpm_integrations.mem0.__all__) == {"AsyncMemory", "Memory"}
    assert set(lpm_integrations.chroma.__all__) == {"ChromaRetrieval", "Document", "Embedding", "Hit", "MiniLMEmbedding"}
    assert set(lpm_integrations.bench.metrics.__all__) == {"locomo_f1", "mem0_bleu1", "mem0_f1", "retrieval_recall"}


def test_importing_the_package_loads_no_model_library() -> None:
    code = "import sys, lpm_core, lpm_core.cli; print([name for name in ('torch', 'transformers', 'chromadb', 'langchain_core') if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_the_core_imports_no_agent_toolkit() -> None:
    code = "import sys, lpm_core.engine, lpm_core.training.embedded; print([n for n in sys.modules if n.split('.')[0] in ('langchain_core', 'llama_index', 'chromadb')])"

    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
