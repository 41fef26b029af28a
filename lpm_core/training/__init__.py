"""Training: synthetic people, the embedded Qwen3, memory weights, and the card that describes them."""
