"""The program of the Jobs: downloads weights to the volume, verifies them, collects old ones.

It imports nothing of llmops outside this package, and starts fast: only `download` imports `huggingface_hub`.
"""
