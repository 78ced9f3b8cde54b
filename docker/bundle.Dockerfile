# A bundle as an image, at /bundle: for Kubernetes, where an init container copies it (`cp`) or an
# image volume mounts it. The build's context is the bundle's folder:
#   docker build -f docker/bundle.Dockerfile -t cofine-bundle bundles/demo
ARG BASE_IMAGE=busybox:1.37
FROM ${BASE_IMAGE}
# Owned by the user that reads it, whatever the folder's modes were.
COPY --chown=10001:10001 . /bundle
USER 10001:10001
