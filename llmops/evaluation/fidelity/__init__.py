"""Whether two engines are the same model, by the log-probabilities that they give to the same tokens. Pure.

Both engines score stable's own answers to the cases of quality suites. Stable scores them twice, in another order and
at another concurrency: what it differs from itself is the null, which a comparison subtracts. On a GPU the batch moves
log-probabilities a little; that is no fault of a release.

Scoring reads a whole text at once, and so tells nothing about how an engine writes token by token. That is told by the
log-probabilities that each engine gave while it wrote its own answer: as long as both wrote the same tokens, they
compare with stable's scores of these tokens.
"""
