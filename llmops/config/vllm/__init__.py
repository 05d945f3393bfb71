"""The command line of vLLM: the flags of each known version, and how vLLM reads them."""
