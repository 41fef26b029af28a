"""LangChain's own standard tests."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import ChatModelIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from lpm_core import LPM
from lpm_integrations.langchain import ChatLPM, LPMRetriever


class TestChatLPMUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLPM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"store": "sqlite://"}

    @property
    def supports_model_override(self) -> bool:
        return False  # one instance runs one local model; another model is another instance


class TestChatLPMIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLPM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"store": "sqlite://", "max_tokens": 96}

    @property
    def has_tool_calling(self) -> bool:
        return False  # calls always fit their schemas, but a model of this size does not yet copy numbers and other scripts into them

    @property
    def has_structured_output(self) -> bool:
        return True  # held to the schema while it is generated


class TestLPMRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _history(self, lpm: LPM) -> None:
        for text in ("My dog is called Rex.", "I live in Oslo.", "I work as a nurse.", "I like green tea."):
            lpm.remember("ann", text)
        self._engine = lpm

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return LPMRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"user_id": "ann", "engine": self._engine}

    @property
    def retriever_query_example(self) -> str:
        return "Where do I live?"
