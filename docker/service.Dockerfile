# The serving image: HTTP and ONNX Runtime, no PyTorch. The bundle is mounted at /bundle. Every
# setting works in it: it has the extras `new-items` and `tracing`, too.
# Build from the repository's root: docker build -f docker/service.Dockerfile -t cofine-service .
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
# Only needed behind a package mirror: --build-arg PIP_INDEX_URL=...
ARG PIP_INDEX_URL
WORKDIR /src
COPY pyproject.toml ./
# The dependencies are a layer of their own, which a change of the code leaves in the cache. The
# environment gets no pip, and loses the tests that packages bring along. It is compiled here,
# because a read-only container cannot keep bytecode.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; print(*project['dependencies'], *extras['new-items'], *extras['tracing'], sep='\n')" > requirements.txt \
    && python -m venv --without-pip /opt/cofine \
    && pip --python /opt/cofine/bin/python install --no-cache-dir --no-compile --requirement requirements.txt \
    && find /opt/cofine -type d -name tests -prune -exec rm -r {} + \
    && /opt/cofine/bin/python -m compileall -q /opt/cofine/lib
COPY README.md LICENSE ./
COPY model model
COPY service service
RUN pip --python /opt/cofine/bin/python install --no-cache-dir --no-deps .

# What the image contains, as CycloneDX: docker build --target sbom --output build ...
FROM build AS inventory
RUN pip install --no-cache-dir cyclonedx-bom==7.5.0 \
    && cyclonedx-py environment /opt/cofine/bin/python --output-file /sbom.json
FROM scratch AS sbom
COPY --from=inventory /sbom.json /

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
USER 10001:10001
EXPOSE 8000
# Ready, not merely alive: compose starts what depends on the service when this says healthy.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['COFINE_PORT'] + '/readyz', timeout=2)"]
# Exec form: SIGTERM must reach Python.
ENTRYPOINT ["cofine-service"]
