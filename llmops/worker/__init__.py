"""What runs inside the Jobs: downloads weights to the volume, proves them, collects old ones.

Imports nothing of llmops outside this package, and starts fast; `huggingface_hub` is imported by `download` alone.
"""
