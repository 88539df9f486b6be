ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_NO_CONFIG=1 \
    UV_PYTHON_INSTALL_DIR=/opt/python
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv python install 3.11.14 \
    && uv venv --managed-python --python 3.11.14 /opt/overpaint
COPY constraints.txt docker/constraints-cuda.txt /constraints/
WORKDIR /src
COPY pyproject.toml README.md ./
COPY common common
COPY producer producer
COPY worker worker
RUN uv build --wheel --build-constraints /constraints/constraints.txt --out-dir /dist . \
    && uv pip install --python /opt/overpaint/bin/python --only-binary :all: \
        --constraints /constraints/constraints.txt --constraints /constraints/constraints-cuda.txt \
        "overpaint[worker] @ $(ls /dist/*.whl)"

FROM ${CUDA_IMAGE} AS worker
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="overpaint-worker" \
      org.opencontainers.image.description="Overpaint's worker for one or more CUDA devices" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 overpaint \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/cache/overpaint --shell /usr/sbin/nologin \
        overpaint \
    && install --directory --owner 10001 --group 10001 /var/cache/overpaint
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /opt/python /opt/python
COPY --from=build /opt/overpaint /opt/overpaint
ENV PATH=/opt/overpaint/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    HOME=/var/cache/overpaint \
    HF_HOME=/var/cache/overpaint/huggingface \
    OVERPAINT_COMPILE_CACHE=/var/cache/overpaint/kernels
WORKDIR /var/cache/overpaint
USER 10001:10001
VOLUME /var/cache/overpaint
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=20s --start-period=30m --start-interval=10s --retries=4 \
    CMD ["overpaint", "ready", "worker"]
ENTRYPOINT ["overpaint"]
CMD ["worker"]

FROM worker AS compiling
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM worker
