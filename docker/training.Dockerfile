# The offline half: from a catalogue and events to a bundle. Build from the repository's root, with
# PyTorch's index of CPU wheels; without it PyPI's PyTorch brings gigabytes of CUDA along:
#   docker build -f docker/training.Dockerfile -t cofine-training --build-arg PIP_EXTRA_INDEX_URL=... .
# Run on a folder that holds the run's TOML file and its data, and takes its results:
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/shop:/data" cofine-training run /data/shop.toml
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY service service
RUN python -m venv --without-pip /opt/cofine \
    && pip --python /opt/cofine/bin/python install --no-cache-dir "/src[train,text]"

FROM ${BASE_IMAGE}
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin cofine
COPY --from=build /opt/cofine /opt/cofine
# Libraries keep caches in the home folder, so it has to be writable: for any user, and with a
# read-only root file system, where /tmp is a volume.
ENV PATH=/opt/cofine/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["cofine"]
CMD ["--help"]
