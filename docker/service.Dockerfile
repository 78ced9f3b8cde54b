# The serving image: HTTP and ONNX Runtime, no PyTorch. The bundle is mounted at /bundle.
# Build from the repository's root: docker build -f docker/service.Dockerfile -t cofine .
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
# Only needed behind a package mirror: --build-arg PIP_INDEX_URL=...
ARG PIP_INDEX_URL
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY service service
RUN python -m venv /opt/cofine \
    && /opt/cofine/bin/pip install --no-cache-dir --no-compile . \
    && /opt/cofine/bin/python -m compileall -q /opt/cofine/lib

FROM ${BASE_IMAGE}
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin cofine
COPY --from=build /opt/cofine /opt/cofine
ENV PATH=/opt/cofine/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    COFINE_HOST=0.0.0.0 \
    COFINE_PORT=8000 \
    COFINE_BUNDLE=/bundle
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['COFINE_PORT'] + '/livez', timeout=2)"]
# Exec form: SIGTERM must reach Python.
ENTRYPOINT ["python", "-m", "service"]
