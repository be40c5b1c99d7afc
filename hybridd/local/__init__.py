"""Local GGUF models: what a file holds, what it needs, what fits, what is loaded, and where files come from."""
