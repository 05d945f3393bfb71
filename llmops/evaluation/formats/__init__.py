"""Evaluation tools that users have: run one as a suite, and read the results file that it writes.

One module per tool reads its files (`lm_eval`, `inspect_ai`, `promptfoo`, `vllm_bench`, `guidellm`); `reading` is what
they have in common, `tools` says how each tool is started and where it writes, and `running` does it.

A file that is missing, cut off, of another tool or version, inconsistent, or of a run that did not finish is a
`MeasurementFailed`: never a score of 0, and never half of the figures.
"""
