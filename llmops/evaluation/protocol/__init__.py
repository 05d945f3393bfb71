"""Whether an engine keeps to the OpenAI API: checks by topic, and what canary and stable make of them. Pure.

A check that the server alone decides (usage adds up, `n` answers come) is judged by itself. A check that the model has
a part in (whether it calls a tool, whether it writes JSON without being held to it) is judged on several questions,
and only beside stable's answers to the same questions. See `conformance` for the rule.
"""
