"""Tokens, trie, search and bundle: what trainer and server share; numpy and onnxruntime only."""
