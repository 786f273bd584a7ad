"""Audio in, embeddings out. Knows nothing of indexes or HTTP."""
