"""Latent personal memory in LangChain and LlamaIndex, a Chroma RAG memory beside it, and the benchmarks that compare them."""
