"""Feeds damaged bytes to each parser of bytes from outside: `python -m bench.fuzzing PARSER --minutes N`."""
