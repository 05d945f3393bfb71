"""The only list of a trial's stages, in their order."""

STAGES = ("release", "weights", "checksum", "canary", "evaluation", "traffic", "promotion")
