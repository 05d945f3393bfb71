"""The stages of a trial, in the order in which they run: the one list of them."""

STAGES = ("release", "weights", "checksum", "canary", "evaluation", "traffic", "promotion")
