# The simulated engine as a container, under the name of vLLM's image and with its entrypoint's command line.
ARG BASE
FROM ${BASE}
COPY llmops_sandbox /app/llmops_sandbox
ENTRYPOINT ["python", "-m", "llmops_sandbox.engine", "--host", "0.0.0.0"]
