# The simulated engine as a container, under the name of vLLM's image and with its entrypoint's command line.
ARG BASE
FROM ${BASE}
COPY llmops_sandbox /app/llmops_sandbox
# In the place of installed packages, as vLLM is: pods set PYTHONPATH to something else.
USER root
RUN python -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0], 'app.pth').write_text('/app')"
USER 2000:2000
ENTRYPOINT ["python", "-m", "llmops_sandbox.engine", "--host", "0.0.0.0"]
